"""The code in the page on chips runs, block after block."""

import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.usefixtures("compiled_quickly")


@pytest.mark.slow
def test_the_pages_code_runs(capsys):
    text = (Path(__file__).resolve().parents[1] / "docs" / "chips.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, re.S)
    assert len(blocks) == 5
    names: dict = {}
    for block in blocks:
        exec(compile(block, "docs/chips.md", "exec"), names)
    printed = capsys.readouterr().out
    assert "2^-4*u0*x1*(y3-64) - 2^-3*x0*(y3-64)" in printed
    assert "needs a dependency, x0, y0 or u0 to u9" in printed and "(7, 1, 2)" in printed
