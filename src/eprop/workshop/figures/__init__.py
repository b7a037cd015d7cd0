"""Pictures, drawn from what is in a run folder."""

import sys
from pathlib import Path

from eprop.errors import require
from eprop.workshop.experiments import begun_rule, confusion, reproduction_of, transcribe_test_utterance
from eprop.workshop.figures._bench import bench_figure
from eprop.workshop.figures._chip_bits import draw_chip_bits
from eprop.workshop.figures._chip_evidence import draw_chip_evidence
from eprop.workshop.figures._comparison import comparison_figure
from eprop.workshop.figures._gradients import alignment_figure
from eprop.workshop.figures._long_range import draw_long_range
from eprop.workshop.figures._one_shot import draw_one_shot
from eprop.workshop.figures._plasticity import draw_plasticity
from eprop.workshop.figures._run import learning_figure, sample_figures
from eprop.workshop.figures._speech import confusion_figure as confusion_figure
from eprop.workshop.figures._speech import draw_speech as draw_speech
from eprop.workshop.figures._speech import utterance_figure as utterance_figure
from eprop.workshop.figures._stream import draw_stream
from eprop.workshop.figures._style import save as save
from eprop.workshop.figures._windows import draw_copy_repeat, draw_words
from eprop.workshop.tasks import Speech, StreamTask
from eprop.workshop.training import RunFolder, load_run, read_json

_REPRODUCED = {
    "speech": draw_speech,
    "one-shot-arm": draw_one_shot,
    "one-shot-sinusoids": draw_one_shot,
    "copy-repeat": draw_copy_repeat,
    "words": draw_words,
    "chip-bits": draw_chip_bits,
    "chip-evidence": draw_chip_evidence,
    "plasticity": draw_plasticity,
    "long-range": draw_long_range,
}


def draw(folder: RunFolder) -> list[Path]:
    """Draw all pictures of a run or a comparison, and return their paths.

    Raises:
        InvalidSetting: if there is nothing to draw yet.
    """
    if folder.config["command"] == "reproduce":
        reproduction_of(folder)  # refuses a folder of another version
        return _REPRODUCED[folder.config["name"]](folder)
    if folder.config["command"] == "stream":
        return draw_stream(folder)
    if folder.config["command"] == "bench":
        measured = folder.path / "bench.json"
        require(measured.is_file(), f"{folder.path}: nothing measured yet; go on with 'eprop resume {folder.path}'")
        bench = read_json(measured)
        return [save(bench_figure(bench, name), folder.path / f"{name}.png") for name in ("time", "memory")]
    if folder.config["command"] != "compare":
        return _draw_run(folder)
    comparison = folder.path / "comparison.json"
    runs = [run for rule in folder.config["rules"] if (run := begun_rule(folder, rule)) is not None]
    written = [path for run in runs if run.metrics() for path in _draw_run(run)]
    if comparison.is_file():
        written.append(save(comparison_figure(folder, read_json(comparison)), folder.path / "comparison.png"))
    return written


def _draw_run(folder: RunFolder) -> list[Path]:
    run = load_run(folder.path)
    figures = {"learning": learning_figure(folder, run.trainer.spiking)} if folder.metrics() else {}
    if folder.config["command"] == "gradients" and folder.metrics():
        figures["alignment"] = alignment_figure(folder)
    task = run.experiment.task
    if run.missing is not None:
        print(f"eprop: {folder.path}: {run.missing}; drawn is what needs no data", file=sys.stderr)
    elif isinstance(task, Speech):
        figures["utterance"] = utterance_figure(transcribe_test_utterance(folder.path))
        if task.objective == "frames":
            title = f"{folder.path.name}, test set"
            figures["confusion"] = confusion_figure(confusion(run), task.classes.names, title)
    elif not isinstance(task, StreamTask):
        figures |= sample_figures(run)
    return [save(figure, folder.figures / f"{name}.png") for name, figure in figures.items()]
