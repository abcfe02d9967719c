"""Install the dependencies of a project before its code is imported: `.env`, dependencies.sh and requirements.txt.

The supervisor does this once for all workers of a pod. Python packages are installed into a separate folder, which comes after
the runtime's own packages on sys.path. Packages that are present are not installed again. A requirement that conflicts with a
package of the runtime is an error.
"""

import importlib.util
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cortex_api.contract import DEPENDENCIES_VARIABLE
from cortex_runtime.errors import StartError, Stopped
from cortex_runtime.processes.parent_pipe import ParentPipe

if TYPE_CHECKING:
    from cortex_api.handler import BaseHandler

log = logging.getLogger("cortex")

PIP, SHELL, CONDA = "requirements.txt", "dependencies.sh", "conda-packages.txt"
"""Default files, which spec.handler.dependencies overrides."""

ENV = ".env"

_RUNTIME_PACKAGES = (
    *("numpy", "onnxruntime", "orjson", "prometheus-client", "pydantic", "pydantic-core", "python-multipart"),
    *("pyyaml", "starlette", "anyio", "uvicorn", "uvloop", "httptools", "h11", "click", "httpx", "httpcore"),
    *("boto3", "botocore", "s3transfer", "grpcio", "h2corn", "protobuf", "nats-py", "typing-extensions"),
)
_LAST_LINES = 20
_PATH = re.compile(r"[-\w./]+")
_MAX_READ = 1 << 20
"""Size in bytes up to which a file is compared by its content."""


class Installer:
    """Installs the dependencies of a project. `prepare` blocks; another thread may call `stop`. Call `close` at the end.

    has_prepared: whether `prepare` changes the environment or installs anything.
    """

    def __init__(self, handler: "BaseHandler", project: Path, parent_pipe: ParentPipe) -> None:
        self._project = project
        self._parent_pipe = parent_pipe
        named = handler.dependencies
        self._pip = self._file("pip", named.pip if named else None, PIP)
        self._shell = self._file("shell", named.shell if named else None, SHELL)
        self._running: subprocess.Popen[str] | None = None
        self._stopped = threading.Event()
        self._files = [named.pip if named else None, named.shell if named else None, PIP, SHELL, CONDA, ENV]
        self._content = self._read_files()
        self.has_prepared = self._pip is not None or self._shell is not None or (project / ENV).is_file()
        self._scratch: Path | None = None

    def has_changed(self) -> bool:
        """Return whether a file that `prepare` reads has another content than when this object was created."""
        return self._read_files() != self._content

    def prepare(self) -> None:
        """Add `.env` to the environment of this process and install the dependencies.

        Raises StartError (DependencyInstallFailed, with the last lines of the output) and Stopped.
        """
        if (self._project / CONDA).is_file():
            raise StartError(
                "DependencyInstallFailed",
                f"{CONDA}: conda packages are not supported. List them in {PIP}, or set handler.image to an "
                "image that has them; then remove the file",
            )
        env = self._project / ENV
        if env.is_file():
            os.environ.update(self._read_env(env))
        if self._shell is not None:
            log.info("running %s", self._shell.name)
            self._run(["bash", "-e", str(self._shell)], self._shell.name)
        if self._pip is not None:
            self._install(self._pip)

    def close(self) -> None:
        """Remove the installed packages."""
        if self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)

    def stop(self) -> None:
        """Stop the running installation."""
        self._stopped.set()
        running = self._running
        if running is not None and running.poll() is None:
            os.killpg(running.pid, signal.SIGTERM)

    def _read_files(self) -> dict[str, bytes]:
        """Return the content of the files that `prepare` reads, and of files in the project that these mention."""
        found: dict[str, bytes] = {}
        names = {name for name in self._files if name is not None}
        while names:
            name = names.pop()
            path = self._project / name
            if name in found or not path.is_file() or path.stat().st_size > _MAX_READ:
                continue
            found[name] = path.read_bytes()
            if name != ENV:
                words = _PATH.findall(found[name].decode(errors="replace"))
                names.update(word.removeprefix("./") for word in words if not word.startswith("/"))
        return found

    def _file(self, field: str, named: str | None, default: str) -> Path | None:
        path = self._project / (named or default)
        if path.is_file():
            return path
        if named is not None:
            raise StartError(
                "DependencyInstallFailed",
                f"handler.dependencies.{field}: file {named} does not exist in the project",
            )
        return None

    def _read_env(self, path: Path) -> dict[str, str]:
        """Return the variables that a file sets. A shell sources it, for the usual quotes, comments and references."""
        script = 'set -a; . "$1" >&2; "$2" -c "import json, os; print(json.dumps(dict(os.environ)))"'
        done = subprocess.run(
            self._parent_pipe.command(["bash", "-e", "-c", script, "bash", str(path), sys.executable]),
            cwd=self._project,
            capture_output=True,
            text=True,
            start_new_session=True,
        )
        if done.returncode != 0:
            raise StartError(
                "InvalidSpec", f".env: bash failed to read the file:\n{_last(done.stderr.splitlines())}"
            )
        found: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
        ignored = ("_", "SHLVL", "PWD", "OLDPWD")
        return {
            name: value
            for name, value in found.items()
            if name not in ignored and os.environ.get(name) != value
        }

    def _install(self, requirements: Path) -> None:
        """Install the missing packages of a requirements file."""
        log.info("installing %s", requirements.name)
        scratch = self._scratch = Path(tempfile.mkdtemp(prefix="cortex-dependencies-"))
        folder = scratch / "packages"
        folder.mkdir()
        missing = self._resolve(requirements, scratch)
        if missing:
            listed = scratch / "missing.txt"
            listed.write_text("".join(f"{line}\n" for line in missing))
            self._pip_install("--no-deps", "--target", str(folder), "-r", str(listed))
        os.environ[DEPENDENCIES_VARIABLE] = str(folder)
        if (folder / "bin").is_dir():
            os.environ["PATH"] = f"{folder / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}"

    def _resolve(self, requirements: Path, scratch: Path) -> list[str]:
        """Return the packages that pip would install, as lines of a requirements file."""
        constraints, report = scratch / "runtime.txt", scratch / "report.json"
        constraints.write_text(
            "".join(f"{name}=={version}\n" for name, version in _runtime_versions().items())
        )
        self._pip_install(
            *("--dry-run", "--report", str(report)),
            *("-c", str(constraints), "-r", str(requirements)),
        )
        lines = []
        for package in json.loads(report.read_bytes())["install"]:
            metadata, origin = package["metadata"], package["download_info"]
            if package.get("is_direct"):
                lines.append(f"{metadata['name']} @ {_direct_url(origin)}")
            else:
                lines.append(f"{metadata['name']}=={metadata['version']}")
        return lines

    def _pip_install(self, *arguments: str) -> None:
        options = ("--disable-pip-version-check", "--no-input", "--progress-bar", "off")
        self._run([*_pip(), "install", *options, *arguments], "pip")

    def _run(self, command: Sequence[str], what: str) -> None:
        if self._stopped.is_set():
            raise Stopped
        try:
            process = subprocess.Popen(
                self._parent_pipe.command(command),
                cwd=self._project,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                start_new_session=True,
            )
        except OSError as error:
            raise StartError("DependencyInstallFailed", f"failed to run {what}: {error}") from error
        self._running = process
        if self._stopped.is_set():
            self.stop()
        last: deque[str] = deque(maxlen=_LAST_LINES)
        assert process.stdout is not None
        for line in process.stdout:
            if text := line.rstrip():
                last.append(text)
                log.info("%s", text, extra={"source": what})
        status = process.wait()
        if self._stopped.is_set():
            raise Stopped
        if status != 0:
            outcome = f"exited with status {status}" if status > 0 else f"was killed by signal {-status}"
            raise StartError("DependencyInstallFailed", f"{what} {outcome}:\n{_last(last)}")


def installed() -> Path | None:
    """Return the folder of the installed packages, or None."""
    folder = os.environ.get(DEPENDENCIES_VARIABLE)
    return Path(folder) if folder else None


def _pip() -> list[str]:
    """Return the command of pip: from this environment, or from the Python that the environment was created with."""
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip"]
    base = getattr(sys, "_base_executable", None) or os.path.join(sys.base_prefix, "bin", "python3")
    return [base, "-m", "pip", "--python", sys.executable]


def _runtime_versions() -> Mapping[str, str]:
    import importlib.metadata  # It takes time to import, and most projects install nothing.

    found = {}
    for name in _RUNTIME_PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            # This image does not contain it.
            continue
    return found


def _direct_url(origin: Mapping[str, object]) -> str:
    """Return the URL of a package that was requested by URL (PEP 610)."""
    vcs = origin.get("vcs_info")
    url = str(origin["url"])
    if isinstance(vcs, dict):
        return f"{vcs['vcs']}+{url}@{vcs['commit_id']}"
    return url


def _last(lines: Sequence[str] | deque[str]) -> str:
    return "\n".join(list(lines)[-_LAST_LINES:])
