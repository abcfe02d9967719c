"""A container of a pod: image check, process, probes, restarts with back-off, and its status."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cortex_devcluster.node import environment, probes
from cortex_devcluster.node.processes import Processes
from cortex_devcluster.node.volumes import Lookup
from cortex_devcluster.objects import Object, now

FIRST_BACKOFF, LAST_BACKOFF, STEADY = 1.0, 30.0, 60.0
"""Shortest and longest delay of a restart in seconds (in Kubernetes 10 and 300). A run of STEADY seconds resets it."""

MESSAGE_BYTES = 4096
LOG_MESSAGE_BYTES, LOG_MESSAGE_LINES = 2048, 80


@dataclass(frozen=True)
class ContainerContext:
    """What a container gets from its pod and node. mounts: local path of each mount path. event: kind, reason, message. refresh:
    updates the files of the volumes."""

    directory: Path
    mounts: Mapping[str, Path]
    images: frozenset[str]
    processes: Processes
    lookup: Lookup
    pod: Callable[[], Object]
    changed: Callable[[], None]
    event: Callable[[str, str, str], Awaitable[None]]
    refresh: Callable[[], None]


def has_image(image: str, images: frozenset[str]) -> bool:
    """Return whether an image is one of `images`, with or without docker.io as its registry."""
    return image in images or image.removeprefix("docker.io/library/").removeprefix("docker.io/") in images


@dataclass
class Container:
    """Runs the process of a container. `attempt` is the number of the latest run, -1 before the first."""

    spec: Object
    context: ContainerContext
    restarts: int = 0
    state: Object = field(default_factory=lambda: {"waiting": {"reason": "ContainerCreating"}})
    last_state: Object = field(default_factory=dict)
    ready: bool = False
    started: bool = False
    process: asyncio.subprocess.Process | None = None
    stopping: bool = False
    env: dict[str, str] = field(default_factory=dict)
    attempt: int = -1

    @property
    def name(self) -> str:
        return str(self.spec["name"])

    @property
    def address(self) -> str:
        return str((self.context.pod().get("status") or {}).get("podIP", "127.0.0.1"))

    def log(self, previous: bool = False) -> Path:
        """Return the path of the log of the latest run, or of the one before."""
        return self.context.directory / f"{self.attempt - previous}.log"

    def status(self) -> Object:
        """Return the ContainerStatus."""
        return {
            "name": self.name,
            "image": self.spec["image"],
            "imageID": self.spec["image"] if self.attempt >= 0 else "",
            "containerID": f"process://{self.process.pid}" if self.process else "",
            "ready": self.ready,
            "started": self.started,
            "restartCount": self.restarts,
            "state": self.state,
            "lastState": self.last_state,
        }

    def _set_state(self, kind: str, **what: Any) -> None:
        self.state = {kind: what}
        self.context.changed()

    async def run(self, policy: str) -> int:
        """Run the process, and restart it according to the restart policy. Return the last exit code."""
        backoff = FIRST_BACKOFF
        await self._wait_for_image()
        while True:
            begun = asyncio.get_running_loop().time()
            code = await self._run_process()
            if self.stopping or policy == "Never" or (policy == "OnFailure" and code == 0):
                return code
            if asyncio.get_running_loop().time() - begun > STEADY:
                backoff = FIRST_BACKOFF
            self.last_state = self.state
            meta = self.context.pod()["metadata"]
            what = f"restarting failed container={self.name} pod={meta['name']}_{meta['namespace']}({meta['uid']})"
            self._set_state("waiting", reason="CrashLoopBackOff", message=f"back-off {backoff:g}s {what}")
            await self.context.event("Warning", "BackOff", f"Back-off {what}")
            await asyncio.sleep(backoff)
            backoff = min(LAST_BACKOFF, backoff * 2)
            self.context.refresh()
            self.restarts += 1

    async def _wait_for_image(self) -> None:
        """Report image pull errors until the image is available; that is forever, unless it is available already."""
        image, delay = self.spec["image"], FIRST_BACKOFF
        while not has_image(image, self.context.images):
            if self.spec.get("imagePullPolicy") == "Never":
                self._set_state(
                    "waiting",
                    reason="ErrImageNeverPull",
                    message=f'Container image "{image}" is not present with pull policy of Never',
                )
            else:
                short = image if "/" in image else f"docker.io/library/{image}"
                available = ", ".join(sorted(self.context.images))
                cause = f'failed to pull and unpack image "{short}": failed to resolve reference "{short}": {short}: not found'
                cause += f" (the dev cluster does not pull images; available: {available})"
                message = f'Failed to pull image "{image}": rpc error: code = NotFound desc = {cause}'
                self._set_state("waiting", reason="ErrImagePull", message=message.split(": ", 1)[1])
                await self.context.event("Normal", "Pulling", f'Pulling image "{image}"')
                await self.context.event("Warning", "Failed", message)
            await self.context.event("Warning", "Failed", "Error: ErrImagePull")
            await asyncio.sleep(FIRST_BACKOFF)
            self._set_state("waiting", reason="ImagePullBackOff", message=f'Back-off pulling image "{image}"')
            await self.context.event("Normal", "BackOff", f'Back-off pulling image "{image}"')
            await asyncio.sleep(delay)
            delay = min(LAST_BACKOFF, delay * 2)
        await self.context.event("Normal", "Pulled", f'Container image "{image}" already present on machine')

    async def _build_command(self) -> list[str]:
        """Return the command line, once everything that the environment refers to exists."""
        while True:
            try:
                pod = self.context.pod()
                self.env = environment.environment(
                    self.spec, pod, self.context.lookup, self.context.mounts, self.context.directory
                )
                return environment.command(self.spec, self.env, self.context.mounts)
            except environment.ConfigFailed as error:
                self._set_state("waiting", reason="CreateContainerConfigError", message=str(error))
                await self.context.event("Warning", "Failed", f"Error: {error}")
                await asyncio.sleep(1)

    async def _run_process(self) -> int:
        """Start the process and wait until it exits. Return its exit code."""
        words = await self._build_command()
        message = self._message_file()
        message.parent.mkdir(parents=True, exist_ok=True)
        message.write_bytes(b"")
        begun = now()
        self.attempt += 1
        # The log may be read before the process has started.
        self.log().touch()
        try:
            self.process = await self.context.processes.start(words, self.env, self._cwd(), self.log())
        except OSError as error:
            cause = f'failed to create containerd task: exec: "{words[0]}": {error.strerror or error}'
            await self.context.event("Warning", "Failed", f"Error: {cause}")
            ended = {"exitCode": 128, "reason": "StartError", "message": cause}
            self._set_state("terminated", **ended, startedAt=begun, finishedAt=now())
            return 128
        self.started = "startupProbe" not in self.spec
        self.ready = self.started and "readinessProbe" not in self.spec
        self._set_state("running", startedAt=begun)
        await self.context.event("Normal", "Created", f"Created container: {self.name}")
        await self.context.event("Normal", "Started", f"Started container {self.name}")
        watching = asyncio.create_task(self._probe())
        try:
            code = await self.process.wait()
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
        self.context.processes.ended(self.process)
        code = code if code >= 0 else 128 - code
        self.ready = self.started = False
        ended = {"exitCode": code, "reason": "Completed" if code == 0 else "Error"}
        if text := self._termination_message(code):
            ended["message"] = text
        self._set_state("terminated", **ended, startedAt=begun, finishedAt=now())
        return code

    def _cwd(self) -> Path:
        if workdir := self.spec.get("workingDir"):
            local = Path(environment.to_local_path(workdir, self.context.mounts))
            if local.is_dir():
                return local
        return self.context.directory

    def _message_file(self) -> Path:
        return self.context.mounts[self.spec.get("terminationMessagePath") or "/dev/termination-log"]

    def _termination_message(self, code: int) -> str:
        text = self._message_file().read_bytes()[:MESSAGE_BYTES].decode(errors="replace")
        if not text and code and self.spec.get("terminationMessagePolicy") == "FallbackToLogsOnError":
            lines = (
                self.log()
                .read_bytes()[-LOG_MESSAGE_BYTES:]
                .decode(errors="replace")
                .splitlines(keepends=True)
            )
            text = "".join(lines[-LOG_MESSAGE_LINES:])
        return text

    async def _probe(self) -> None:
        """Run the startup probe until it succeeds, then the readiness and liveness probes."""
        if startup := self.spec.get("startupProbe"):
            passed = asyncio.Event()

            async def decided(ok: bool) -> None:
                if ok:
                    passed.set()
                else:
                    await self._restart("startup")

            trying = asyncio.create_task(self._watch(startup, "Startup", decided))
            try:
                await passed.wait()
            finally:
                trying.cancel()
            self.started = True
            self.ready = "readinessProbe" not in self.spec
            self.context.changed()
        async with asyncio.TaskGroup() as tasks:
            if readiness := self.spec.get("readinessProbe"):
                tasks.create_task(self._watch(readiness, "Readiness", self._readiness))
            if liveness := self.spec.get("livenessProbe"):

                async def alive(ok: bool) -> None:
                    if not ok:
                        await self._restart("liveness")

                tasks.create_task(self._watch(liveness, "Liveness", alive))

    async def _watch(self, probe: Object, kind: str, verdict: Callable[[bool], Awaitable[None]]) -> None:
        async def failure(message: str) -> None:
            if not self.stopping:
                await self.context.event("Warning", "Unhealthy", f"{kind} probe failed: {message}")

        await probes.run_probe(probe, self.spec, self.address, self.execute, verdict, failure)

    async def _readiness(self, ok: bool) -> None:
        self.ready = ok and not self.stopping
        self.context.changed()

    async def _restart(self, why: str) -> None:
        await self.context.event(
            "Normal", "Killing", f"Container {self.name} failed {why} probe, will be restarted"
        )
        if self.process:
            grace = self.context.pod()["spec"].get("terminationGracePeriodSeconds", 30)
            self.context.processes.signal(self.process, signal.SIGTERM)
            asyncio.get_running_loop().call_later(grace, self._kill, self.process)

    def _kill(self, process: asyncio.subprocess.Process) -> None:
        if process.returncode is None:
            self.context.processes.signal(process, signal.SIGKILL)

    async def execute(self, words: list[str], timeout: float) -> tuple[int, str]:
        """Run a command in the environment of the container. Return its exit code and output."""
        vector = environment.localize_command(words, self.env, self.context.mounts)
        output = self.context.directory / f"exec-{id(words)}.log"
        output.write_bytes(b"")
        try:
            process = await self.context.processes.start(vector, self.env, self._cwd(), output)
        except OSError as error:
            return 126, f'exec: "{vector[0]}": {error.strerror or error}'
        try:
            code = await asyncio.wait_for(process.wait(), timeout)
            return code, output.read_text(errors="replace").strip()
        except TimeoutError:
            return 124, f"command {words!r} timed out after {timeout:g}s"
        finally:
            self.context.processes.ended(process)
            output.unlink(missing_ok=True)

    async def stop(self, grace: float) -> None:
        """Run the preStop hook, send SIGTERM, and SIGKILL after `grace` seconds."""
        self.stopping = True
        self.ready = False
        process = self.process
        if process is None or process.returncode is not None:
            return
        await self.context.event("Normal", "Killing", f"Stopping container {self.name}")
        deadline = asyncio.get_running_loop().time() + grace
        if hook := (self.spec.get("lifecycle") or {}).get("preStop"):
            if "sleep" in hook:
                await asyncio.sleep(min(grace, float(hook["sleep"]["seconds"])))
            else:
                message = "the dev cluster supports only preStop hooks of type sleep"
                await self.context.event("Warning", "FailedPreStopHook", message)
        self.context.processes.signal(process, signal.SIGTERM)
        try:
            await asyncio.wait_for(process.wait(), max(0.0, deadline - asyncio.get_running_loop().time()))
        except TimeoutError:
            self.context.processes.signal(process, signal.SIGKILL)
            await process.wait()
