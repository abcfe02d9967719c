"""What README and docs show: blocks of text, files and commands. `python -m tests.cli.documents` lists the commands."""

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])


@dataclass(frozen=True)
class Block:
    """A block between fences. file: what it is to be written to. reason: why its commands aren't run."""

    kind: str
    text: str
    file: str | None
    reason: str | None

    @property
    def commands(self) -> list[str]:
        """One a line; those that go on over several lines are joined."""
        lines = re.sub(r"\\\n\s*", "", self.text).splitlines() if self.kind == "sh" else []
        return [line for line in lines if line.strip()]


def blocks(document: Path) -> Iterator[Block]:
    """The blocks of a document: a file has "`NAME`:" above it, what isn't run "<!-- not run: REASON -->"."""
    kind, text, above = None, "", ""
    for line in document.read_text().splitlines():
        if kind is None and line.startswith("```"):
            kind, text = line[3:], ""
        elif kind is not None and line == "```":
            file = re.fullmatch(r"`([\w./-]+)`:", above)
            reason = re.fullmatch(r"<!-- not run: (.+) -->", above)
            yield Block(kind, text, file and file[1], reason and reason[1])
            kind, above = None, ""
        elif kind is not None:
            text += f"{line}\n"
        elif line.strip():
            above = line.strip()


def inline(document: Path) -> list[str]:
    """What stands between single backticks outside of blocks."""
    prose = re.sub(r"^```.*?^```$", "", document.read_text(), flags=re.MULTILINE | re.DOTALL)
    return [" ".join(found.split()) for found in re.findall(r"`([^`]+)`", prose)]


def main() -> int:
    """Prints every command with how it is tested."""
    for document in DOCUMENTS:
        for block in blocks(document):
            for command in block.commands:
                how = f"not run: {block.reason}" if block.reason else "run"
                print(f"{document.relative_to(ROOT)}: {command.strip()}  [{how}]")
    return 0


if __name__ == "__main__":
    sys.exit(main())
