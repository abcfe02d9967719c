"""Parse the code blocks, files and commands in README and docs. `python -m tests.cli.documents` lists the commands."""

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])


@dataclass(frozen=True)
class Block:
    """A fenced code block.

    file: the file with this content, if any. reason: why the commands are not run, if so.
    """

    kind: str
    text: str
    file: str | None
    reason: str | None

    @property
    def commands(self) -> list[str]:
        """The commands of the block, with continued lines joined."""
        lines = re.sub(r"\\\n\s*", "", self.text).splitlines() if self.kind == "sh" else []
        return [line for line in lines if line.strip()]


def blocks(document: Path) -> Iterator[Block]:
    """Yield the blocks of a document. "`NAME`:" above a block marks a file, "<!-- not run: REASON -->" disables its commands."""
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
    """Return the inline code outside of blocks."""
    prose = re.sub(r"^```.*?^```$", "", document.read_text(), flags=re.MULTILINE | re.DOTALL)
    return [" ".join(found.split()) for found in re.findall(r"`([^`]+)`", prose)]


def main() -> int:
    """Print each command and whether it is run by the tests."""
    for document in DOCUMENTS:
        for block in blocks(document):
            for command in block.commands:
                how = f"not run: {block.reason}" if block.reason else "run"
                print(f"{document.relative_to(ROOT)}: {command.strip()}  [{how}]")
    return 0


if __name__ == "__main__":
    sys.exit(main())
