"""Run the runtime's programs as child processes, for `cortex run`.

Each child has its own session, so that Ctrl-C in a terminal is only sent to this process. A guard kills the children and removes
their files even if this process is killed.
"""

import contextlib
import difflib
import functools
import json
import math
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType
from typing import Self

import click
import httpx

from cortex_api import AsyncAPI, Document, RealtimeAPI
from cortex_api.contract import (
    CONSUME_COMMAND,
    DOCUMENT_FILE,
    GATEWAY_COMMAND,
    QUEUE_URL_VARIABLE,
    READINESS_PATH,
    SERVE_COMMAND,
)
from cortex_cli import diagnosis, source_config_maps
from cortex_cli.local import queue_server
from cortex_cli.local.ports import HOST, free_port
from cortex_cli.local.process_guard import Guard, kill_group
from cortex_cli.log_lines import parse, readable

_POLL = 0.1
_AT_ONCE = ("--drain-delay", "0")
"""Without a proxy that still sends connections, a program that stops does not wait for them."""
_LONG_STEP = 3.0
"""Seconds after which a step of the start is shown."""


@dataclass(frozen=True)
class Program:
    """A program of the runtime.

    name: the prefix of its log lines if there are several programs. environment: additional environment variables.
    """

    name: str
    command: list[str]
    admin_port: int
    termination_log: Path
    environment: dict[str, str] = field(default_factory=dict)


class Scratch:
    """A temporary folder with the files that the operator would mount into a pod. It is removed when this process exits."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="cortex-run-"))
        self.guard = Guard(self.folder)
        self.models = self.folder / "models"
        self.models.mkdir()
        self.document = self.folder / DOCUMENT_FILE

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.guard.close()

    def write(self, api: RealtimeAPI | AsyncAPI, file: Path) -> Path:
        """Write the document of the API and, if a manifest contains them, the files of the project.

        file: the manifest.
        Returns the folder of the project. This is the folder of the manifest, unless the code is inline, or is in a ConfigMap
        and not in that folder. Raises ClickException.
        """
        project = file.absolute().parent
        source = api.spec.handler.source
        if source is not None and source.config_map is not None:
            missing = [
                path for path in source_config_maps.required_paths(api) if not (project / path).exists()
            ]
            config_map = source_config_maps.find_near(api, file) if missing else None
            if config_map is not None:
                project = self.folder / "project"
                source_config_maps.unpack(config_map, self.folder / "packed", project)
            elif missing:
                raise click.ClickException(
                    f"{missing[0]} is not in {project}, and no manifest in that folder contains ConfigMap"
                    f" {source.config_map.name}{_suggestion(project, missing[0])}"
                )
        for path, content in (source.files or {}).items() if source else ():
            project = self.folder / "project"
            target = project / path
            target.parent.mkdir(parents=True, exist_ok=True)
            if not target.exists() or target.read_text() != content:
                target.write_text(content)
        document = Document.of(api).to_json()
        if not self.document.exists() or self.document.read_bytes() != document:
            fresh = self.document.with_suffix(".new")
            fresh.write_bytes(document)
            fresh.replace(self.document)
        return project

    def programs(
        self,
        api: RealtimeAPI | AsyncAPI,
        project: Path,
        ports: tuple[int, int, int],
        reloaded: Path | None,
        variables: dict[str, str],
    ) -> list[Program]:
        """Return the programs that the pods of the API would run; for an AsyncAPI, gateway and worker.

        ports: of the API, of the admin port and of gRPC. reloaded: the manifest, if changes are reloaded. variables: environment
        variables of the user's code.
        """
        code = ["--project", str(project), "--models", str(self.models), "--show-tracebacks"]
        code += ["--reload", "--manifest", str(reloaded.absolute())] if reloaded else []
        port, admin_port, grpc_port = ports
        if isinstance(api, RealtimeAPI):
            ports_of_api = ["--port", str(port), "--grpc-port", str(grpc_port)]
            serve = self._program(SERVE_COMMAND, admin_port, *_AT_ONCE, *ports_of_api, *code)
            return [replace(serve, environment=variables)]
        return [
            self._program(GATEWAY_COMMAND, free_port(), *_AT_ONCE, "--port", str(port)),
            replace(self._program(CONSUME_COMMAND, free_port(), *code), environment=variables),
        ]

    def _program(self, name: str, admin_port: int, *options: str) -> Program:
        log = self.folder / f"{name}.termination"
        command = [
            sys.executable,
            "-m",
            "cortex_runtime",
            name,
            "--host",
            HOST,
            "--config",
            str(self.document),
        ]
        command += ["--termination-log", str(log), "--admin-port", str(admin_port), *options]
        return Program(name, command, admin_port, log)

    @functools.cached_property
    def queue(self) -> str:
        """The URL of a queue server that is started at the first use and stops with this process. Raises ClickException."""
        try:
            return queue_server.start(self.folder, self.guard)
        except queue_server.QueueServerError as error:
            raise click.ClickException(
                f"an AsyncAPI needs a queue; set {QUEUE_URL_VARIABLE} to nats://host:4222 or"
                f" sqs://bucket/prefix, or fix the local queue server: {error}"
            ) from error


class Runtime:
    """A group of running programs. If one exits, the others are stopped.

    Their logs go to stdout: as JSON, or in a readable format if stdout is a terminal.
    on_line: called with the name of the program and each line of its log, from another thread.
    """

    def __init__(
        self,
        programs: list[Program],
        guard: Guard,
        environment: dict[str, str],
        on_line: Callable[[str, str], None] | None = None,
    ) -> None:
        self._on_line = on_line
        # Threads have no context of their own.
        self._color = click.get_current_context().color
        self._start_failure = ""
        self._programs = programs
        self._guard = guard
        self._signals: list[int] = []
        self._processes: list[subprocess.Popen[str]] = []
        self._readers: list[threading.Thread] = []
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)
        for program in programs:
            self._start(program, environment)
        if self._signals:
            self._send_signal(self._signals[-1])

    def _start(self, program: Program, environment: dict[str, str]) -> None:
        is_read = sys.stdout.isatty() or self._on_line is not None
        program.termination_log.unlink(missing_ok=True)
        process = subprocess.Popen(
            program.command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if is_read else None,
            text=True,
            errors="replace",
            env={**os.environ, **program.environment, **environment},
            start_new_session=True,
        )
        self._guard.watch(process.pid)
        self._processes.append(process)
        if is_read:
            reader = threading.Thread(target=self._print_log, args=(process, program.name), daemon=True)
            self._readers.append(reader)
            reader.start()

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        """Drain on the first signal; kill everything on the second."""
        self._signals.append(number)
        if len(self._signals) == 1:
            self._send_signal(number)
        else:
            for process in self._processes:
                kill_group(process.pid)

    def _send_signal(self, number: int) -> None:
        for process in self._processes:
            if process.poll() is None:
                process.send_signal(number)

    def wait(self, timeout: float | None = None) -> int | None:
        """Wait until all programs have exited.

        timeout: in seconds.
        Returns the first exit status other than 0, or 0; 128 + the signal number if a second signal killed them; None on timeout.
        Raises BrokenPipeError if the reader of stdout has exited, because the programs themselves continue without it.
        """
        end = None if timeout is None else time.monotonic() + timeout
        while all(process.poll() is None for process in self._processes):
            if _is_stdout_closed() and not self._signals:
                raise BrokenPipeError
            remaining = _POLL if end is None else min(_POLL, end - time.monotonic())
            if remaining <= 0:
                return None
            time.sleep(remaining)
        if not self._signals:
            self._send_signal(signal.SIGTERM)
        statuses = [process.wait() for process in self._processes]
        for reader in self._readers:
            reader.join(1)
        if len(self._signals) > 1 and any(status < 0 for status in statuses):
            return 128 + self._signals[-1]
        return next((status for status in statuses if status), 0)

    def stop(self) -> None:
        """Stop all programs that still run, and wait until they have exited."""
        self._on_signal(signal.SIGTERM, None)
        self.wait()

    def wait_ready(self) -> bool:
        """Wait until all programs are ready. Return False if one exits or a signal arrives before."""
        pending = list(self._programs)
        step, since = "", time.monotonic()
        with httpx.Client(timeout=5, trust_env=False) as client:
            while pending and self.wait(0) is None and not self._signals:
                try:
                    response = client.get(f"http://{HOST}:{pending[0].admin_port}{READINESS_PATH}")
                    if response.is_success:
                        pending.pop(0)
                        continue
                    if step != (step := response.json().get("message", "")):
                        since = time.monotonic()
                except (httpx.TransportError, ValueError):
                    pass  # The program does not listen yet.
                if step and time.monotonic() - since > _LONG_STEP:
                    click.echo(f"not ready yet: {step}", err=True)
                    since = math.inf
                time.sleep(_POLL / 2)
        return not pending

    def _print_log(self, process: subprocess.Popen[str], name: str) -> None:
        assert process.stdout is not None
        is_terminal = sys.stdout.isatty()
        prefix = f"{name:<8}" if len(self._programs) > 1 else ""
        for line in process.stdout:
            text = line.rstrip("\n")
            with contextlib.suppress(BrokenPipeError):  # `wait` raises it.
                if is_terminal and _is_start_failure(text):
                    self._start_failure = text  # `failure_message` returns it.
                else:
                    click.echo(readable(text, prefix) if is_terminal else text, color=self._color)
            if self._on_line is not None:
                self._on_line(name, text)

    def failure_message(self, status: int) -> str:
        """Return the reason and message from the termination log of a failed program, with the name of a missing package."""
        for program in self._programs:
            try:
                cause = json.loads(program.termination_log.read_bytes())
                remedy = diagnosis.missing_package(cause["reason"], cause["message"])
                return f"{cause['reason']}: {cause['message']}" + (f"\n-> {remedy}" if remedy else "")
            except (OSError, ValueError, KeyError):
                continue
        return self._start_failure or f"the runtime exited with status {status}; see its log above"


def _is_start_failure(line: str) -> bool:
    """Return whether a line of the log contains the message of the termination log."""
    content = parse(line)
    return content is not None and "reason" in content and content["message"].startswith("failed to start")


def _suggestion(project: Path, path: str) -> str:
    """Return the file next to a missing one that has a similar name, as a question; "" without one."""
    folder = (project / path).parent
    names = [file.name for file in folder.iterdir()] if folder.is_dir() else []
    matches = difflib.get_close_matches(Path(path).name, names, 1)
    return f"; did you mean {Path(path).with_name(matches[0])}?" if matches else ""


def _is_stdout_closed() -> bool:
    """Return whether stdout is a pipe whose reader has exited, as in `cortex run api.yaml | head`."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    return any(events & select.POLLERR for _, events in poll.poll(0))
