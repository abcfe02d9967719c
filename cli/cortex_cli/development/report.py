"""What `cortex dev` prints about the copy, besides its logs. Threads may call it concurrently."""

import re
import threading

import click

from cortex_api.contract import AWAITING_PROJECT
from cortex_cli.apis import API
from cortex_cli.development.replica_client import Outcome

_MAX_NAMES = 3
_REPORTED_BYTES = 1 << 20


class Report:
    """Prints each fact once.

    name: of the copy. url: of the forwarded port.
    """

    def __init__(self, name: str, url: str, command: str) -> None:
        self._name = name
        self._url = url
        self._command = command
        self._lock = threading.Lock()
        self._last = ""
        self._is_ready = False

    def note(self, text: str) -> None:
        """Print a line."""
        self._print(text)

    def warning(self, text: str) -> None:
        """Print a warning."""
        self._print(click.style(text, fg="yellow"))

    def waiting(self, api: API) -> None:
        """Print why the copy has no replica yet, when that changes."""
        ready = api.ready
        if api.is_outdated or not ready["reason"] or AWAITING_PROJECT in ready["message"]:
            return
        self._once(f"{self._name}: {ready['reason']}: {ready['message']}")

    def step(self, description: str) -> None:
        """Print a step that takes longer."""
        self._once(f"{self._name}: {description}")

    def sending(self, files: int, size: int) -> None:
        """Print that large files are sent."""
        if size >= _REPORTED_BYTES:
            self._print(f"sending {files} file{'s' * (files > 1)}, {size / 1024 / 1024:.1f} MiB")

    def ready(self, api: API) -> None:
        """Print the addresses of the copy, once."""
        with self._lock:
            if self._is_ready:
                return
            self._is_ready = True
        self._print(click.style(f"{self._name} is ready at {self._url}", fg="green", bold=True))
        if url := api.status.get("url"):
            self._print(f"In the cluster: {url}")
        self._print(self._command)
        self._print("Saved files take effect within seconds. Ctrl-C ends this and deletes the copy.")

    def outcome(self, outcome: Outcome, names: list[str], seconds: float) -> None:
        """Print the result of a change. names: of the changed files; empty for the first version of a replica."""
        what = ", ".join(names[:_MAX_NAMES]) + (
            f" and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else ""
        )
        if outcome.is_ready:
            self._last = ""
            if names:
                self._print(click.style(f"{what}: the new code serves after {seconds:.2f} s", fg="green"))
            return
        state = "the previous code keeps serving" if outcome.serves_previous else "waiting for a fix"
        title = f"{what or self._name}: {outcome.reason}; {state}"
        self._print(f"{click.style(title, fg='red', bold=True)}\n{_indented(outcome.message)}")

    def _once(self, text: str) -> None:
        with self._lock:
            if text == self._last:
                return
            self._last = text
        self._print(text)

    def _print(self, text: str) -> None:
        click.echo(text, err=True)


def _indented(text: str) -> str:
    return re.sub("^", "    ", text, flags=re.MULTILINE)
