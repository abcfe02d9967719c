"""The logs of all replicas of an API, merged. They are followed while a page shows them, and kept in memory only.

The log of a container that has exited is read too: that of a crash loop has the cause.
"""

import json
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from cortex_cli.connection import Cluster, ClusterError, Object, Stream, path
from cortex_cli.log_lines import parse
from cortex_cli.ui.store import Key, Store

LEVELS = ("debug", "info", "warning", "error")
_KEPT = 3000
"""Lines of an API."""
_TAIL = "500"
"""Lines of each container that are read at first."""
_MAX_STREAMS = 40
_UNUSED_SECONDS = 30.0
_PAUSE = 1.0
_LONGEST_LINE = 20_000
_SHOWN_FIELDS = {"time", "level", "message", "traceback"}


@dataclass(frozen=True)
class Line:
    """A line of a log. clock: local time. fields: further fields of a JSON line, such as requestId."""

    number: int
    time: str
    clock: str
    pod: str
    color: int
    level: str
    message: str
    traceback: str
    fields: tuple[tuple[str, str], ...]

    @property
    def id(self) -> str:
        """Of its element."""
        return f"line-{self.number}"

    def matches(self, level: str, words: list[str], pod: str) -> bool:
        """Return whether it has at least a level, contains all words, and is of a pod ("" for all)."""
        if pod and pod != self.pod:
            return False
        if level and self.level in LEVELS and LEVELS.index(self.level) < LEVELS.index(level):
            return False
        text = " ".join((self.message, self.traceback, *(f"{k}={v}" for k, v in self.fields))).lower()
        return all(word in text for word in words)


Run = tuple[str, str]
"""The uid of a pod, and when its container was started."""


@dataclass
class _Book:
    """wanted: when a page last showed it. errors: by pod. active: the runs that are read; None while a stream is opened.

    seen: all runs that were read. exits: those that have exited. closed: set when it is not followed any more.
    """

    lines: deque[Line] = field(default_factory=lambda: deque(maxlen=_KEPT))
    wanted: float = 0.0
    errors: dict[str, str] = field(default_factory=dict)
    active: dict[Run, Stream | None] = field(default_factory=dict)
    seen: set[Run] = field(default_factory=set)
    exits: set[Run] = field(default_factory=set)
    colors: dict[str, int] = field(default_factory=dict)
    count: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    closed: threading.Event = field(default_factory=threading.Event)


class LogBooks:
    """The logs of the APIs whose pages are open. on_change: called from its threads after new lines."""

    def __init__(self, cluster: Cluster, store: Store, on_change: Callable[[], None]) -> None:
        self._cluster = cluster
        self._store = store
        self._on_change = on_change
        self._books: dict[Key, _Book] = {}
        self._lock = threading.Lock()

    def lines(self, key: Key) -> tuple[list[Line], dict[str, str]]:
        """Return the lines of an API, sorted by time, and errors by pod. Follows the logs from now on."""
        with self._lock:
            book = self._books.get(key)
            if book is None:
                book = self._books[key] = _Book(wanted=time.monotonic())
                threading.Thread(target=self._follow, args=(key, book), daemon=True).start()
            book.wanted = time.monotonic()
        with book.lock:
            found = list(book.lines)
        return sorted(found, key=lambda line: (line.time, line.number)), dict(book.errors)

    def close(self) -> None:
        """Follow no logs any more."""
        with self._lock:
            for book in self._books.values():
                book.closed.set()

    def _follow(self, key: Key, book: _Book) -> None:
        """Read the logs of all pods, those that are created later included, until no page shows them."""
        while not book.closed.is_set():
            with self._lock:
                if time.monotonic() - book.wanted > _UNUSED_SECONDS:
                    del self._books[key]
                    book.closed.set()
                    break
            for pod in self._store.pods(key):
                self._read_exited(book, pod)
                started = _container(pod).get("state", {}).get("running", {}).get("startedAt")
                if started is None:
                    continue
                run = str(pod["metadata"]["uid"]), str(started)
                # All lines of a container that has just started; only new ones after a broken connection.
                tail = "0" if run in book.seen else _TAIL
                if run not in book.active:
                    self._start(book, pod, run, {"tailLines": tail, "follow": "true"})
            book.closed.wait(_PAUSE)
        for stream in list(book.active.values()):
            if stream is not None:
                stream.close()

    def _read_exited(self, book: _Book, pod: Object) -> None:
        """Read the log of the container that exited last, unless it was followed, and add a line that it has exited."""
        status = _container(pod)
        current, last = status.get("state", {}), status.get("lastState", {})
        ended = current.get("terminated") or last.get("terminated")
        if not ended:
            return
        run = str(pod["metadata"]["uid"]), str(ended.get("startedAt") or ended.get("finishedAt"))
        if run not in book.seen:
            # While a container waits for its restart, its log is that of the exited one.
            previous = {"previous": "true"} if "running" in current else {}
            self._start(book, pod, run, {"tailLines": _TAIL, **previous})
        if run in book.seen and run not in book.active and run not in book.exits:
            book.exits.add(run)
            reason = (
                f" ({ended['reason']})" if ended.get("reason") not in (None, "Error", "Completed") else ""
            )
            message = f"the container exited with code {ended.get('exitCode')}{reason}"
            content = {"level": "error", "message": message, "time": str(ended.get("finishedAt") or "")}
            with book.lock:
                self._add(book, pod["metadata"]["name"], json.dumps(content), "")
            self._on_change()

    def _start(self, book: _Book, pod: Object, run: Run, query: dict[str, str]) -> None:
        """Read a log in a thread, unless too many are read."""
        if len(book.active) >= _MAX_STREAMS:
            return
        book.active[run] = None
        book.seen.add(run)
        threading.Thread(target=self._read, args=(book, pod, run, query), daemon=True).start()

    def _read(self, book: _Book, pod: Object, run: Run, query: dict[str, str]) -> None:
        name, namespace = pod["metadata"]["name"], pod["metadata"]["namespace"]
        query = {"container": pod["spec"]["containers"][0]["name"], **query}
        rest, last = b"", ""
        try:
            stream = self._cluster.open_stream(path("v1/pods", namespace, name, "log"), query)
            book.active[run] = stream
            if book.closed.is_set():
                stream.close()
            book.errors.pop(name, None)
            for chunk in stream:
                *lines, rest = (rest + chunk).split(b"\n")
                with book.lock:
                    for line in lines:
                        last = self._add(book, name, line.decode(errors="replace"), last)
                self._on_change()
            if rest:
                with book.lock:
                    self._add(book, name, rest.decode(errors="replace"), last)
                self._on_change()
        except ClusterError as error:
            # The log of a container that has exited may be deleted already.
            if "follow" in query:
                if book.active.get(run) is None:
                    # Nothing was read, so the next attempt reads the lines until then.
                    book.seen.discard(run)
                book.errors[name] = error.message
                self._on_change()
                book.closed.wait(_PAUSE)
        finally:
            book.active.pop(run, None)

    def _add(self, book: _Book, pod: str, text: str, last: str) -> str:
        """Append a line, and return its time. last: the time of the previous line, for lines without one."""
        content = parse(text) or {}
        stamp = str(content.get("time") or last)
        book.count += 1
        color = book.colors.setdefault(pod, len(book.colors) % 6)
        book.lines.append(
            Line(
                book.count,
                stamp,
                _clock(stamp),
                pod,
                color,
                str(content.get("level", "")).lower(),
                str(content["message"] if content else text)[:_LONGEST_LINE],
                str(content.get("traceback") or "")[:_LONGEST_LINE],
                tuple((k, _text(v)) for k, v in content.items() if k not in _SHOWN_FIELDS),
            )
        )
        return stamp


def _container(pod: Object) -> Object:
    """Return the status of the first container of a pod; empty before it exists."""
    name = pod["spec"]["containers"][0]["name"]
    statuses = (pod.get("status") or {}).get("containerStatuses") or ()
    return next((each for each in statuses if each["name"] == name), {})


def _clock(stamp: str) -> str:
    try:
        return datetime.fromisoformat(stamp).astimezone().strftime("%H:%M:%S")
    except ValueError:
        return ""


def _text(value: Any) -> str:
    return value if isinstance(value, str) else str(value)
