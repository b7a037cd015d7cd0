"""`eprop export`: a trained network as other tools read it."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eprop.errors import InvalidSetting, require, suggestion
from eprop.files import write_whole
from eprop.workshop._extras import require_extra
from eprop.workshop.cli._execute import prepare
from eprop.workshop.cli._parse import take_option, wants_help

if TYPE_CHECKING:
    from eprop.networks import Network
    from eprop.workshop.training import LoadedRun

USAGE = """\
usage: eprop export DIR --to nir|safetensors|npz|loihi-rule FILE [options]

The network of a run folder, as its last checkpoint has it, as a file for other tools.

  --to nir          a graph of the neuromorphic intermediate representation: LIF neurons and their readout
  --to safetensors  every array by its place in the network (layers.0.w_in, readout.weight)
  --to npz          the same in NumPy's format
  --to loihi-rule   e-prop for the network's neurons as a learning rule of Loihi, in text; no weights

  --seed N                               which of the folder's seeds, where it has several
  --approximate                          nir: write a hard reset where ours subtracts the threshold, and print the
                                         share of spikes that then differ, measured on held-out data
  --discretisation euler|exponential     nir: the step of the tool that will run the graph (default: euler)
  --exponent N                           loihi-rule: the learning rate, 2^N / 8 (default: -4)
  --overwrite                            replace FILE

example:
  eprop train pattern-generation --neuron lif --reset hard --n-refractory 1 --out runs/hard
  eprop export runs/hard --to nir hard.nir
"""
FORMS = ("nir", "safetensors", "npz", "loihi-rule")


def export(arguments: list[str]) -> None:
    if not arguments:
        print(USAGE, end="")
        return
    if wants_help(arguments, USAGE):
        return
    values, flags, (folder, file) = _parsed(arguments)
    form = values["to"]
    require(form in FORMS, f"to = {form!r}: must be one of {', '.join(FORMS)}{suggestion(form, FORMS)}")
    for name, of in (("approximate", "nir"), ("discretisation", "nir"), ("exponent", "loihi-rule")):
        require(form == of or not (values.get(name) or name in flags), f"{name}: goes with --to {of} alone")
    if form in ("nir", "safetensors"):
        require_extra("exchange", f"eprop export --to {form}")
    require("overwrite" in flags or not file.exists(), f"{file}: stands there already; --overwrite replaces it")
    require(file.parent.is_dir(), f"{file}: there is no folder {file.parent}")
    run = _loaded(folder)
    network = run.trainer.network(run.state, _place(run, values["seed"]))
    said = _writers(run, network, values, "approximate" in flags)[form](file)
    print(file if said is None else f"{file}: {said}")


def _parsed(arguments: list[str]) -> tuple[dict[str, str], set[str], tuple[Path, Path]]:
    """Options with a value, flags, folder and file."""
    values, rest = {}, arguments
    for name in ("to", "seed", "discretisation", "exponent"):
        values[name], rest = take_option(rest, name, "")
    known = ("--approximate", "--overwrite")
    flags = {argument[2:] for argument in rest if argument in known}
    rest = [argument for argument in rest if argument not in known]
    for argument in rest:
        options = [*known, *(f"--{name}" for name in values)]
        require(not argument.startswith("-"), f"unknown option {argument}{suggestion(argument, options)}")
    require(
        len(rest) == 2 and bool(values["to"]),
        "export: name a run folder, a form and a file, as in 'eprop export runs/first --to npz first.npz'",
    )
    return values, flags, (Path(rest[0]), Path(rest[1]))


def _loaded(folder: Path) -> "LoadedRun":
    from eprop.workshop.training import RunFolder, load_run

    config = RunFolder.open(folder).config
    command = config["command"]
    require(
        command in ("train", "gradients"),
        f"{folder}: is of 'eprop {command}'; name the folder of one network, as those of a comparison's rules",
    )
    prepare(config)
    return load_run(folder)


def _place(run: "LoadedRun", seed: str) -> int:
    """Which of the run's seeds."""
    seeds = list(run.trainer.seeds)
    if not seed:
        require(len(seeds) == 1, f"seed: the run has {', '.join(map(str, seeds))}; name one with --seed")
        return 0
    known = [str(each) for each in seeds]
    require(seed in known, f"seed = {seed}: the run has {', '.join(known)}")
    return known.index(seed)


def _writers(
    run: "LoadedRun", network: "Network", values: dict[str, str], approximate: bool
) -> dict[str, Callable[[Path], str | None]]:
    """What writes each form; it returns what there is to say."""
    from eprop.interop import require_nir, to_loihi_rule, to_nir, to_npz, to_safetensors

    def nir(file: Path) -> str | None:
        how: Any = values["discretisation"] or "euler"
        inputs = _held_out(run) if approximate else None
        made = to_nir(network, approximate=approximate, inputs=inputs, discretisation=how)
        write_whole(file, lambda temporary: require_nir().write(temporary, made.graph))
        return None if made.spikes_differ is None else f"{100 * made.spikes_differ:.1f} % of the spikes differ"

    def loihi(file: Path) -> str | None:
        exponent = values["exponent"] or "-4"
        require(exponent.lstrip("-").isdigit(), f"exponent = {exponent}: must be a whole number")
        made = to_loihi_rule(network, file, rule=run.trainer.rule, exponent=int(exponent))
        return f"dw = {made.rule.dw}" + (f"; dt = {made.rule.dt}" if made.rule.dt else "")

    return {
        "nir": nir,
        "loihi-rule": loihi,
        "npz": lambda file: to_npz(network, file),
        "safetensors": lambda file: to_safetensors(network, file),
    }


def _held_out(run: "LoadedRun") -> Any:
    """Inputs to count spikes on."""
    import jax

    if run.missing is not None:
        raise InvalidSetting(f"approximate: spikes are counted on the run's data, and {run.missing}")
    trainer, size = run.trainer, run.experiment.run.evaluation_batch or run.experiment.run.batch
    data = trainer.data if trainer.task.shared_data else jax.tree.map(lambda x: x[0], trainer.data)
    return trainer.task.held_out(data, jax.random.key(run.experiment.run.seed), size)[0].inputs
