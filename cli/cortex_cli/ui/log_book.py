"""The logs of all replicas of an API, merged. They are followed while a page shows them, and kept in memory only."""

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


@dataclass
class _Book:
    """wanted: when a page last showed it. errors: by pod. active: by pod uid and restart count; None while a stream is opened.

    closed: set when it is not followed any more.
    """

    lines: deque[Line] = field(default_factory=lambda: deque(maxlen=_KEPT))
    wanted: float = 0.0
    errors: dict[str, str] = field(default_factory=dict)
    active: dict[tuple[str, int], Stream | None] = field(default_factory=dict)
    seen: set[tuple[str, int]] = field(default_factory=set)
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
                run = _run(pod)
                if run is None or run in book.active or len(book.active) >= _MAX_STREAMS:
                    continue
                # All lines of a container that has just started; only new ones after a broken connection.
                tail = "0" if run in book.seen else _TAIL
                book.active[run] = None
                book.seen.add(run)
                threading.Thread(target=self._read, args=(book, pod, run, tail), daemon=True).start()
            book.closed.wait(_PAUSE)
        for stream in list(book.active.values()):
            if stream is not None:
                stream.close()

    def _read(self, book: _Book, pod: Object, run: tuple[str, int], tail: str) -> None:
        name, namespace = pod["metadata"]["name"], pod["metadata"]["namespace"]
        query = {"container": pod["spec"]["containers"][0]["name"], "tailLines": tail, "follow": "true"}
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
        except ClusterError as error:
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


def _run(pod: Object) -> tuple[str, int] | None:
    """Return the run of the first container of a pod: uid and restart count; None before it has started."""
    name = pod["spec"]["containers"][0]["name"]
    statuses = (pod.get("status") or {}).get("containerStatuses") or ()
    found = next((each for each in statuses if each["name"] == name), None)
    if found is None or not {"running"} & (found.get("state") or {}).keys():
        return None
    return str(pod["metadata"]["uid"]), int(found.get("restartCount", 0))


def _clock(stamp: str) -> str:
    try:
        return datetime.fromisoformat(stamp).astimezone().strftime("%H:%M:%S")
    except ValueError:
        return ""


def _text(value: Any) -> str:
    return value if isinstance(value, str) else str(value)
