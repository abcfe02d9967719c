"""A project's folder, and what of it goes into a cluster: the files that the former `cortex deploy` uploaded."""

import os
import re
import stat
import sys
from collections.abc import Collection, Iterator
from pathlib import Path

from cortex_cli import ignore

_GENERATED = (".pyc", ".pyo", ".pyd")
_MANIFEST = re.compile(rb"^apiVersion:", re.MULTILINE), re.compile(rb"^kind:", re.MULTILINE)


class Unpackable(ValueError):
    """A project that can't go into a ConfigMap: the message says why, and what to do."""


def files_of(folder: Path, without: Collection[Path] = ()) -> dict[str, Path]:
    """The files of a project by their relative paths, in order.

    Left out: what `.cortexignore` names; hidden files and folders but `.env`; `__pycache__` and compiled files; virtual
    environments; `cortex.yaml`; Kubernetes manifests; `without`, and the file that standard output goes to. What
    `.cortexignore` names with a "!" stays. Raises Unpackable for a folder that can't be read, and for a link that leaves it.
    """
    root = folder.resolve()
    try:
        lines = (root / ignore.NAME).read_text().splitlines() if (root / ignore.NAME).is_file() else []
        rules = ignore.Rules(lines)
        left_out = {path.resolve() for path in without}
        found = {
            path.relative_to(root).as_posix(): path
            for path in _walk(root, root, rules)
            if path not in left_out and not _is_standard_output(path)
        }
    except (OSError, UnicodeDecodeError) as error:
        raise Unpackable(f"{folder} can't be read: {error}") from error
    return dict(sorted(found.items()))


def _walk(root: Path, folder: Path, rules: ignore.Rules) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        relative = path.relative_to(root).as_posix()
        is_folder = path.is_dir()
        verdict = rules.verdict(relative, is_folder)
        if verdict or (verdict is None and _stays_behind(root, path, is_folder)):
            continue
        if path.is_symlink() and (is_folder or not path.resolve().is_relative_to(root)):
            raise Unpackable(
                f"{path} is a link to {'a folder' if is_folder else 'another folder'}: put a copy there, or name it in"
                f" {ignore.NAME}"
            )
        if is_folder:
            yield from _walk(root, path, rules)
        elif path.is_file():
            yield path
        else:
            raise Unpackable(f"{path} is neither a file nor a folder: name it in {ignore.NAME}")


def _stays_behind(root: Path, path: Path, is_folder: bool) -> bool:
    name = path.name
    if name.startswith("."):
        return name != ".env" or path.parent != root
    if is_folder:
        return name == "__pycache__" or (path / "pyvenv.cfg").is_file()
    if path.suffix in _GENERATED:
        return True
    if path.suffix not in (".yaml", ".yml"):
        return False
    if name == "cortex.yaml":
        return True
    content = path.read_bytes()
    return all(pattern.search(content) for pattern in _MANIFEST)


def _is_standard_output(path: Path) -> bool:
    """Whether `... > FILE` writes into this file: it would hold itself."""
    try:
        output = os.fstat(sys.__stdout__.fileno() if sys.__stdout__ else 1)
    except (OSError, ValueError):
        return False
    return stat.S_ISREG(output.st_mode) and os.path.samestat(output, path.stat())
