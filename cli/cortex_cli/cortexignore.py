"""Parse `.cortexignore`, which excludes files of a project. The syntax is that of .gitignore."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

NAME = ".cortexignore"


@dataclass(frozen=True)
class _Rule:
    pattern: re.Pattern[str]
    ignores: bool
    folders_only: bool


class Rules:
    """The rules of a `.cortexignore` file. Paths are relative to its folder."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._rules = [rule for line in lines if (rule := _rule(line.rstrip("\r\n"))) is not None]

    def is_ignored(self, path: str, is_folder: bool) -> bool | None:
        """Return whether a relative path is ignored, or None if no rule matches. The last matching rule applies.

        The caller must not descend into ignored folders.
        """
        for rule in reversed(self._rules):
            if (is_folder or not rule.folders_only) and rule.pattern.fullmatch(path):
                return rule.ignores
        return None


def _rule(line: str) -> _Rule | None:
    # Trailing spaces are significant only if they are escaped.
    line = re.sub(r"(?<!\\) +$", "", line)
    if not line or line.startswith("#"):
        return None
    ignores = not line.startswith("!")
    pattern = line if ignores else line[1:]
    folders_only = pattern.endswith("/")
    pattern = pattern.removesuffix("/")
    if not pattern:
        return None
    # A slash at the beginning or in the middle anchors a pattern to the folder of the file.
    anywhere = "" if "/" in pattern else "(?:.*/)?"
    return _Rule(re.compile(anywhere + _regex(pattern.removeprefix("/")), re.DOTALL), ignores, folders_only)


def _regex(pattern: str) -> str:
    text, rest = "", re.sub(r"(^|/)(\*\*/)+", r"\1**/", pattern)
    if rest.startswith("**/"):
        text, rest = "(?:.*/)?", rest[3:]
    while rest:
        if rest.startswith("/**/"):
            text, rest = text + "/(?:.*/)?", rest[4:]
        elif rest == "/**":
            text, rest = text + "/.+", ""
        elif rest.startswith("*"):
            text, rest = text + "[^/]*", rest.lstrip("*")
        elif rest.startswith("?"):
            text, rest = text + "[^/]", rest[1:]
        elif match := re.match(r"\[([!^]?)(\]?[^\]/]*)\]", rest):
            characters = match[2].replace("\\", r"\\").replace("[", r"\[").replace("]", r"\]")
            text, rest = f"{text}(?!/)[{'^' if match[1] else ''}{characters}]", rest[match.end() :]
        else:
            escaped = rest.startswith("\\") and len(rest) > 1
            text, rest = text + re.escape(rest[escaped]), rest[1 + escaped :]
    return text
