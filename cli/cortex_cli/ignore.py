"""`.cortexignore`: which files of a project stay behind, in the syntax of gitignore."""

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
    """The rules of a file, from the folder that it is in."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._rules = [rule for line in lines if (rule := _rule(line.rstrip("\r\n"))) is not None]

    def verdict(self, path: str, is_folder: bool) -> bool | None:
        """Whether a relative path is ignored; None when no rule names it. The last rule that fits decides.

        What is in an ignored folder is ignored too; the caller does not look into it.
        """
        for rule in reversed(self._rules):
            if (is_folder or not rule.folders_only) and rule.pattern.fullmatch(path):
                return rule.ignores
        return None


def _rule(line: str) -> _Rule | None:
    # Spaces at the end count only where they are escaped.
    line = re.sub(r"(?<!\\) +$", "", line)
    if not line or line.startswith("#"):
        return None
    ignores = not line.startswith("!")
    pattern = line if ignores else line[1:]
    folders_only = pattern.endswith("/")
    pattern = pattern.removesuffix("/")
    if not pattern:
        return None
    # A slash at the beginning or in the middle ties a pattern to the folder of the file.
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
        elif found := re.match(r"\[([!^]?)(\]?[^\]/]*)\]", rest):
            inside = found[2].replace("\\", r"\\").replace("[", r"\[").replace("]", r"\]")
            text, rest = f"{text}(?!/)[{'^' if found[1] else ''}{inside}]", rest[found.end() :]
        else:
            escaped = rest.startswith("\\") and len(rest) > 1
            text, rest = text + re.escape(rest[escaped]), rest[1 + escaped :]
    return text
