"""The README of the dev cluster states its size, so that its growth is noticed."""

import re
from pathlib import Path

DEVCLUSTER = Path(__file__).parents[2] / "devcluster"


def test_the_readme_states_the_number_of_lines() -> None:
    files = [path for path in DEVCLUSTER.rglob("*.py") if path.name != "demo.py"]
    lines = sum(len(path.read_text().splitlines()) for path in files)
    stated = re.search(r"about ([\d,]+) lines", (DEVCLUSTER / "README.md").read_text())
    assert stated
    assert abs(int(stated[1].replace(",", "")) - lines) <= 0.05 * lines
