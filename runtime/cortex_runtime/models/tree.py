"""Layouts of model folders: which models and versions a path holds. Reads names only, never a model."""

from dataclasses import dataclass
from pathlib import Path

from cortex_runtime.errors import StartError


@dataclass(frozen=True)
class Model:
    """One model. versions: number to the .onnx file; a model without versions has the version 1."""

    name: str
    versions: dict[int, Path]

    @property
    def latest(self) -> int:
        """The highest version."""
        return max(self.versions)


def onnx_model(name: str, path: Path) -> Model:
    """The model at a path: a .onnx file, a folder with one, or a folder of integer versions with one each.

    Raises StartError: ModelInvalid.
    """
    if path.is_file():
        if path.suffix != ".onnx":
            raise StartError("ModelInvalid", f"{path} is not a .onnx file")
        return Model(name, {1: path})
    entries = [entry for entry in path.iterdir() if not entry.name.startswith(".")]
    numbered = [entry for entry in entries if entry.is_dir() and entry.name.isdecimal()]
    if not numbered:
        return Model(name, {1: _only_onnx_file(path)})
    others = sorted(entry.name for entry in entries if entry not in numbered)
    if others:
        raise StartError(
            "ModelInvalid",
            f"{path} mixes versions (folders named by a number) with other entries: {', '.join(others)}",
        )
    versions = {int(entry.name): _only_onnx_file(entry) for entry in numbered}
    return Model(name, dict(sorted(versions.items())))


def _only_onnx_file(folder: Path) -> Path:
    files = sorted(folder.glob("*.onnx"))
    if len(files) != 1:
        found = ", ".join(file.name for file in files) or "none"
        raise StartError("ModelInvalid", f"{folder} must hold exactly one .onnx file; found {found}")
    return files[0]
