"""docs/architecture.md: every file and folder that the page names exists."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "architecture.md"
RELATIVE = re.compile(r"Paths are relative to `([\w/]+/)`")
PATH = re.compile(r"`(\.?[\w-]+(?:/[\w.-]+)*(?:/|\.py))`")


def named_paths() -> list[Path]:
    """The paths on the page; those of a section that declares a base folder are relative to it."""
    found = []
    for section in re.split(r"^## ", PAGE.read_text(), flags=re.MULTILINE):
        base = RELATIVE.search(section)
        folder = ROOT / base[1] if base else ROOT
        found += [folder / path for path in PATH.findall(RELATIVE.sub("", section))]
        found += [folder] if base else []
    return found


def test_every_path_exists() -> None:
    paths = named_paths()
    assert len(paths) > 60
    assert [str(path.relative_to(ROOT)) for path in paths if not path.exists()] == []


def test_the_table_answers_at_least_twenty_questions() -> None:
    table = PAGE.read_text().split("## Where do I change ...?")[1].split("\n## ")[0]
    assert len(re.findall(r"^\| (?!---|Question)", table, re.MULTILINE)) >= 20
