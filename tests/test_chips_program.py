"""The program's experiments on chips: tables and pictures, the same numbers after an interruption, refusals."""

import json
import shutil

import pytest

from eprop import InvalidSetting
from eprop.workshop.cli import main
from eprop.workshop.experiments import ChipBitsFigure, ChipEvidenceFigure

pytestmark = pytest.mark.usefixtures("compiled_quickly")
TINY_BITS = (
    "reproduce chip-bits --tasks pattern --pattern-iterations 3 --weight-bits 3,8 --trace-bits 4,8 "
    "--roundings stochastic --updates collected"
)
TINY_EVIDENCE = "reproduce chip-evidence --samples 2 --test 2 --seeds 1 --neurons 20"


def rows(folder):
    return json.loads((folder / "results.json").read_text())["rows"]


@pytest.mark.slow
def test_bits_end_with_a_table_and_a_picture_and_go_on_to_the_same_numbers(tmp_path, capsys):
    main([*TINY_BITS.split(), "--out", str(tmp_path / "whole")])
    said = capsys.readouterr().out
    assert "traces 4" in said and "stochastic" in said and (tmp_path / "whole" / "chip-bits.png").is_file()
    found = rows(tmp_path / "whole")
    assert len(found) == 2 + 4 and {row["network"] for row in found} == {"float", "bptt", "quantised"}
    assert len({row["value"] for row in found}) == 6
    again = shutil.copytree(tmp_path / "whole", tmp_path / "again")
    shutil.rmtree(again / "pattern-stochastic-collected")
    with pytest.raises(SystemExit) as stop:  # after the first update of the quantised networks
        main(["resume", str(again), "--stop-after", "0.001s"])
    assert stop.value.code == 75 and (again / "pattern-stochastic-collected" / "checkpoints").is_dir()
    main(["resume", str(again)])
    assert rows(again) == found


@pytest.mark.slow
def test_evidence_ends_with_tables_a_picture_and_costs_in_each_summary(tmp_path, capsys):
    main([*TINY_EVIDENCE.split(), "--out", str(tmp_path / "run")])
    said = capsys.readouterr().out
    assert "synaptic operations effective acs" in said and "cosine of integer and float update" in said
    assert (tmp_path / "run" / "chip-evidence.png").is_file()
    found = rows(tmp_path / "run")
    for row in found:
        summary = json.loads((tmp_path / "run" / f"{row['chip']}-0" / "summary.json").read_text())
        assert summary == row and summary["cost"]["footprint"] > 1000 and 0 < summary["cost"]["activation_sparsity"] < 1
    assert found[0]["cost"]["synapses_touched"] < 1 == found[1]["cost"]["synapses_touched"]
    (tmp_path / "run" / "loihi-lif-0" / "summary.json").unlink()  # as if it had been killed there
    main(["resume", str(tmp_path / "run")])
    without_clock = lambda row: {name: value for name, value in row.items() if name != "wall_s"}  # noqa: E731
    assert [without_clock(row) for row in rows(tmp_path / "run")] == [without_clock(row) for row in found]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ChipBitsFigure(weight_bits=(1,)), "weight_bits = 1: must be an integer from 2 to 32"),
        (lambda: ChipBitsFigure(trace_bits=(4, 4)), "trace_bits = 4,4: one stands there twice"),
        (lambda: ChipBitsFigure(tasks=("words",)), "tasks = 'words': must be one of evidence, pattern, digits"),
        (lambda: ChipBitsFigure(roundings=()), "roundings: name at least one"),
        (lambda: ChipBitsFigure(digits_iterations=0), "digits_iterations = 0: must be"),
        (lambda: ChipEvidenceFigure(chips=("truenorth",)), "chips = 'truenorth': must be one of reckon, loihi-lif"),
        (lambda: ChipEvidenceFigure(neurons=33), "n_rec = 33: must be even"),
        (lambda: ChipEvidenceFigure(neurons=258), "n_rec = 258: must be an integer from 2 to 256"),
        (lambda: ChipEvidenceFigure(loihi_exponent=-8), "exponent = -8: must be from -7 to 8"),
        (lambda: ChipEvidenceFigure(reckon_rate=32), "lr_p_winp = 32: .* its register has 5 bits"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(make, message):
    with pytest.raises(InvalidSetting, match=message):
        make()
