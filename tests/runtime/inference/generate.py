"""Generate the modules of the gRPC messages, after a change of the .proto files or of grpcio-tools.

Run `python tests/runtime/inference/generate.py`.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[3] / "runtime"
FOLDER = ROOT / "cortex_runtime/inference/protos"

# Formatted by the generator.
_HEADER = "# ruff: noqa\n# fmt: off\n"
_DEFAULT_POOL, _OWN_POOL = "_descriptor_pool.Default()", "_POOL"
_IMPORT = "from google.protobuf import descriptor_pool as _descriptor_pool\n"


def generated() -> dict[str, str]:
    """Return names and content of the files in FOLDER."""
    protos = sorted(str(path.relative_to(ROOT)) for path in FOLDER.glob("*.proto"))
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{ROOT}"]
        command += [f"--python_out={folder}", f"--pyi_out={folder}", *protos]
        subprocess.run(command, check=True)
        made = Path(folder) / FOLDER.relative_to(ROOT)
        return {path.name: _HEADER + _in_own_pool(path.read_text()) for path in made.iterdir()}


def _in_own_pool(content: str) -> str:
    """Return a module whose messages are in the pool of the package."""
    if _DEFAULT_POOL not in content:
        return content
    own = "from cortex_runtime.inference.protos.pool import POOL as _POOL\n"
    return content.replace(_IMPORT, own).replace(_DEFAULT_POOL, _OWN_POOL)


if __name__ == "__main__":
    for name, content in generated().items():
        (FOLDER / name).write_text(content)
        print(f"{FOLDER / name} is written")
