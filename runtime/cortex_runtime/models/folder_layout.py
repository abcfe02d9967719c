"""Layouts of model folders: find the versions in a list of names, and check that each is a model of the handler's type.

Pure functions over names relative to the location of the model ("1/model.onnx"), so that a bucket is checked before a download.
Entries that begin with a dot are ignored.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

ARCHIVES = (".zip", ".tar.gz", ".tgz")
"""Suffixes of archives, which are unpacked."""

_VERSION = re.compile(r"[0-9]{1,18}").fullmatch
_MAX_SHOWN = 20

_ACCEPTED: Mapping[str, tuple[str, ...]] = {
    "python": ("any files", "<version>/any files, where <version> is a number"),
    "onnx": (
        "<any name>.onnx, exactly one (with external data files, if any)",
        "<version>/<any name>.onnx, where <version> is a number",
        "<any name>.zip as the only file, with one of these layouts for one version",
    ),
    "tensorflow": (
        "saved_model.pb and variables/variables.index, variables/variables.data-...",
        "<version>/saved_model.pb and so on, where <version> is a number",
        "<any name>.zip as the only file, with an exported model",
    ),
}


class InvalidLayout(Exception):
    """A folder has no valid layout. The message contains the accepted layouts and the existing names."""


@dataclass(frozen=True)
class FolderLayout:
    """The versions of a model.

    versions: the folders of the versions as prefixes ("", "3/"), by number. problems: of invalid versions, by number.
    """

    versions: Mapping[int, str]
    problems: Mapping[int, str]


def read(kind: str, names: Iterable[str], where: str) -> FolderLayout:
    """Return the versions in a folder. A folder without versions is version 1.

    kind: the handler's type. names: of all files below the folder. where: the folder, for messages. Raises InvalidLayout if no
    version is valid.
    """
    seen = visible(names)
    folders: dict[str, list[str]] = {}
    others: list[str] = []
    for name in seen:
        top, inside, rest = name.partition("/")
        if inside and _VERSION(top):
            folders.setdefault(top, []).append(rest)
        else:
            others.append(name)
    if not folders:
        if wrong := check(kind, seen):
            raise InvalidLayout(describe(kind, seen, where, wrong))
        return FolderLayout({1: ""}, {})
    if others:
        wrong = (
            f"it contains both versions ({_few(sorted(folders, key=int))}) "
            f"and other entries ({_few(sorted({name.partition('/')[0] for name in others}))})"
        )
        raise InvalidLayout(describe(kind, seen, where, wrong))
    versions: dict[int, str] = {}
    problems: dict[int, str] = {}
    for folder in sorted(folders, key=lambda name: (int(name), name)):
        number, inside_it = int(folder), folders[folder]
        if number in versions or number in problems:
            problems[number] = f"{where}: version {number} has two folders"
            versions.pop(number, None)
        elif wrong := check(kind, inside_it):
            problems[number] = describe(kind, inside_it, f"{where.rstrip('/')}/{folder}", wrong)
        else:
            versions[number] = f"{folder}/"
    if not versions:
        raise InvalidLayout("\n".join(problems.values()))
    return FolderLayout(versions, problems)


def check(kind: str, names: Sequence[str]) -> str | None:
    """Return the problem with the files of one version, or None. kind: the handler's type."""
    names = visible(names)
    if not names:
        return "it contains no files"
    if kind == "python" or lone_archive(names):
        return None
    if kind == "onnx":
        models = [name for name in names if "/" not in name and name.endswith(".onnx")]
        if len(models) != 1:
            return f"it must contain exactly one .onnx file; found {_few(sorted(models)) or 'none'}"
        return None
    if "saved_model.pb" not in names:
        return "saved_model.pb is missing"
    variables = [name for name in names if name.startswith("variables/")]
    # A graph that has only constants is exported without this folder.
    if variables and "variables/variables.index" not in variables:
        return "variables/variables.index is missing"
    if variables and not any(name.startswith("variables/variables.data-") for name in variables):
        return "variables/variables.data-... is missing"
    return None


def lone_archive(names: Sequence[str]) -> str | None:
    """Return the archive that is the only file of a version, or None."""
    seen = visible(names)
    return seen[0] if len(seen) == 1 and seen[0].lower().endswith(ARCHIVES) else None


def models_in(names: Iterable[str]) -> dict[str, list[str]]:
    """Return the models of a `dir`: the names of the files by folder. Files outside of a folder are ignored."""
    found: dict[str, list[str]] = {}
    for name in names:
        top, inside, rest = name.partition("/")
        if inside and rest and not top.startswith("."):
            found.setdefault(top, []).append(rest)
    return {name: found[name] for name in sorted(found)}


def root_of(kind: str, names: Sequence[str]) -> str:
    """Return the folder of an unpacked archive that contains the model: "", or "NAME/" for the only folder at the top.

    An export is often packed together with its folder. A Python model keeps the layout of its archive.
    """
    seen = visible(names)
    tops = {name.partition("/")[0] for name in seen}
    if kind == "python" or len(tops) != 1 or not all("/" in name for name in seen):
        return ""
    return f"{tops.pop()}/"


def visible(names: Iterable[str]) -> list[str]:
    """Return the names without those that have a part which begins with a dot."""
    return [name for name in names if not name.startswith(".") and "/." not in name]


def describe(kind: str, names: Sequence[str], where: str, wrong: str) -> str:
    """Return an error message with the accepted layouts and the existing names."""
    what = {"python": "a model", "onnx": "an ONNX model", "tensorflow": "a TensorFlow SavedModel"}[kind]
    shown = sorted(names)[:_MAX_SHOWN]
    if len(names) > len(shown):
        shown.append(f"... and {len(names) - len(shown)} more")
    lines = [
        f"{where} is not {what}: {wrong}",
        "accepted layouts:",
        *(f"  {line}" for line in _ACCEPTED[kind]),
    ]
    return "\n".join([*lines, "found:", *(f"  {name}" for name in shown or ("nothing",))])


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more
