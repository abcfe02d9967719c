"""Select the files of a project folder that go into a ConfigMap."""

import os
import re
import stat
import sys
from collections.abc import Collection, Iterator
from pathlib import Path

from cortex_cli import cortexignore

_GENERATED = (".pyc", ".pyo", ".pyd")
_MANIFEST = re.compile(rb"^apiVersion:", re.MULTILINE), re.compile(rb"^kind:", re.MULTILINE)


class PackError(ValueError):
    """A project cannot be packed into a ConfigMap. The message contains the cause and a remedy."""


def files_of(folder: Path, without: Collection[Path] = ()) -> dict[str, Path]:
    """Return the files of a project by relative path, sorted.

    Excluded are: the patterns in `.cortexignore`; hidden files and folders except `.env`; `__pycache__` and compiled files;
    virtual environments; `cortex.yaml`; Kubernetes manifests; `without`; and the file that standard output is redirected to.
    A "!" pattern in `.cortexignore` includes a file again.
    Raises PackError if the folder cannot be read or contains a link to a file outside of it.
    """
    root = folder.resolve()
    try:
        lines = (
            (root / cortexignore.NAME).read_text().splitlines()
            if (root / cortexignore.NAME).is_file()
            else []
        )
        rules = cortexignore.Rules(lines)
        excluded = {path.resolve() for path in without}
        files = {
            path.relative_to(root).as_posix(): path
            for path in _walk(root, root, rules)
            if path not in excluded and not _is_standard_output(path)
        }
    except (OSError, UnicodeDecodeError) as error:
        raise PackError(f"{folder} cannot be read: {error}") from error
    return dict(sorted(files.items()))


def _walk(root: Path, folder: Path, rules: cortexignore.Rules) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        relative = path.relative_to(root).as_posix()
        is_folder = path.is_dir()
        is_ignored = rules.is_ignored(relative, is_folder)
        if is_ignored or (is_ignored is None and _is_excluded_by_default(root, path, is_folder)):
            continue
        if path.is_symlink() and (is_folder or not path.resolve().is_relative_to(root)):
            target = "a folder" if is_folder else "a file outside the project"
            raise PackError(
                f"{path} is a symbolic link to {target}; replace it with a copy, or add it to {cortexignore.NAME}"
            )
        if is_folder:
            yield from _walk(root, path, rules)
        elif path.is_file():
            yield path
        else:
            raise PackError(f"{path} is neither a file nor a folder; add it to {cortexignore.NAME}")


def _is_excluded_by_default(root: Path, path: Path, is_folder: bool) -> bool:
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
    """Return whether standard output is redirected to this file, which would then contain itself."""
    try:
        output = os.fstat(sys.__stdout__.fileno() if sys.__stdout__ else 1)
    except (OSError, ValueError):
        return False
    return stat.S_ISREG(output.st_mode) and os.path.samestat(output, path.stat())
