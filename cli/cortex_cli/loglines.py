"""JSON log lines of a replica as a person reads them: `cortex run` on a terminal, and `cortex logs`."""

import json
from datetime import datetime
from typing import Any

import click

_COLOURS = {"debug": "bright_black", "info": "green", "warning": "yellow", "error": "red", "critical": "red"}
_SHOWN_ELSEWHERE = {"time", "level", "message", "logger", "process", "traceback", "method", "path", "status"}


def readable(line: str, prefix: str = "") -> str:
    """One line of log for a person, with colours; what is not JSON of the runtime's stays as it is.

    prefix: stands before every line, a traceback's too.
    """
    content = parsed(line)
    if content is None:
        return prefix + line
    level = str(content["level"])
    fields = {key: value for key, value in content.items() if key not in _SHOWN_ELSEWHERE}
    if "milliseconds" in fields:
        fields = {"": f"{fields.pop('milliseconds'):g} ms", **fields}
    words = [
        click.style(_clock(content.get("time")), dim=True),
        click.style(f"{level.upper():<7}", fg=_COLOURS.get(level)),
        str(content["message"]),
        *(click.style(f"{key}={_value(value)}" if key else value, dim=True) for key, value in fields.items()),
    ]
    text = " ".join(words)
    if content.get("traceback"):
        text += "\n" + click.style(str(content["traceback"]), fg="red")
    return "\n".join(prefix + part for part in text.split("\n"))


def parsed(line: str) -> dict[str, Any] | None:
    """The content of a line that the runtime wrote, or None."""
    if not line.startswith("{"):
        return None
    try:
        content = json.loads(line)
    except ValueError:
        return None
    return content if isinstance(content, dict) and {"level", "message"} <= content.keys() else None


def _clock(moment: Any) -> str:
    try:
        return datetime.fromisoformat(moment).astimezone().strftime("%H:%M:%S")
    except (TypeError, ValueError):
        return "--:--:--"


def _value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
