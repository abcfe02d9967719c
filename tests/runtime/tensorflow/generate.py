"""Generate the modules of TensorFlow Serving's messages, after a change of the .proto files or of grpcio-tools.

Run `python tests/runtime/tensorflow/generate.py`.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[3] / "runtime"
FOLDER = ROOT / "cortex_runtime/clients/tfserving"

# Formatted by the generator.
_HEADER = "# ruff: noqa\n# fmt: off\n"


def generated() -> dict[str, str]:
    """Return names and content of the files in FOLDER."""
    protos = sorted(str(path.relative_to(ROOT)) for path in FOLDER.glob("*.proto"))
    with tempfile.TemporaryDirectory() as folder:
        # A separate process: the generator and TensorFlow each contain protobuf, and crash in one process.
        command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{ROOT}"]
        command += [f"--python_out={folder}", f"--pyi_out={folder}", *protos]
        subprocess.run(command, check=True)
        made = Path(folder) / FOLDER.relative_to(ROOT)
        return {path.name: _HEADER + path.read_text() for path in made.iterdir()}


if __name__ == "__main__":
    for name, content in generated().items():
        (FOLDER / name).write_text(content)
        print(f"{FOLDER / name} is written")
