"""Format the JSON log lines of a replica for a terminal, for `cortex run` and `cortex logs`."""

import json
from datetime import datetime
from typing import Any

import click

_COLORS = {"debug": "bright_black", "info": "green", "warning": "yellow", "error": "red", "critical": "red"}
_HANDLED_FIELDS = {"time", "level", "message", "logger", "process", "traceback", "method", "path", "status"}


def readable(line: str, prefix: str = "") -> str:
    """Format a log line with colors. Lines that are not JSON of the runtime are returned unchanged.

    prefix: printed before each line, including the lines of a traceback.
    """
    content = parse(line)
    if content is None:
        return prefix + line
    level = str(content["level"])
    fields = {key: value for key, value in content.items() if key not in _HANDLED_FIELDS}
    if "milliseconds" in fields:
        fields = {"": f"{fields.pop('milliseconds'):g} ms", **fields}
    words = [
        click.style(_clock(content.get("time")), dim=True),
        click.style(f"{level.upper():<7}", fg=_COLORS.get(level)),
        str(content["message"]),
        *(click.style(f"{key}={_value(value)}" if key else value, dim=True) for key, value in fields.items()),
    ]
    text = " ".join(words)
    if content.get("traceback"):
        text += "\n" + click.style(str(content["traceback"]), fg="red")
    return "\n".join(prefix + part for part in text.split("\n"))


def parse(line: str) -> dict[str, Any] | None:
    """Return the content of a JSON line of the runtime, or None for other lines."""
    if not line.startswith("{"):
        return None
    try:
        content = json.loads(line)
    except ValueError:
        return None
    return content if isinstance(content, dict) and {"level", "message"} <= content.keys() else None


def _clock(timestamp: Any) -> str:
    try:
        return datetime.fromisoformat(timestamp).astimezone().strftime("%H:%M:%S")
    except (TypeError, ValueError):
        return "--:--:--"


def _value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
