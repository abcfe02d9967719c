"""The key that an API may ask its clients for (handler.apiKeys): where `get` and `predict` have it from. It is never printed."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from cortex_cli.apis import API

VARIABLE = "CORTEX_API_KEY"
HOW = f"--api-key-file, --api-key or {VARIABLE}"
HEADER = "x-api-key"
"""Authorization is the API server's own: behind its proxy nobody sees it."""


def shows_a_key(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that name a key; the command gets it as `api_key`, or None."""

    @click.option(
        "--api-key",
        metavar="KEY",
        envvar=VARIABLE,
        show_envvar=True,
        help="A key of the API, shown to it when it asks for one.",
    )
    @click.option(
        "--api-key-file",
        metavar="FILE",
        type=click.Path(path_type=Path),
        help="A file with the key, which then stands in no list of processes and no history.",
    )
    @functools.wraps(command)
    def wrapper(*arguments: Any, api_key: str | None, api_key_file: Path | None, **options: Any) -> Any:
        if api_key_file is not None:
            if click.get_current_context().get_parameter_source("api_key") is ParameterSource.COMMANDLINE:
                raise click.UsageError("--api-key and --api-key-file both name a key: give one of them")
            api_key = _read(api_key_file)
        return command(*arguments, api_key=None if api_key is None else _checked(api_key), **options)

    return wrapper


def headers(api: API, key: str | None) -> dict[str, str]:
    """What an API is shown. One that asks for no key is shown none: its handler would see it."""
    return {HEADER: key} if key is not None and asks(api) else {}


def asks(api: API) -> bool:
    """Whether an API asks its clients for a key."""
    return bool(api.live["spec"]["handler"].get("apiKeys"))


def _read(file: Path) -> str:
    try:
        return file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise click.ClickException(f"{file}: can't be read: {reason}") from error


def _checked(key: str) -> str:
    """Without space around it, as the runtime reads those of the Secret. Raises ClickException."""
    key = key.strip()
    if not key:
        raise click.ClickException("the API key is empty")
    if not (key.isascii() and key.isprintable()):
        raise click.ClickException("the API key holds characters that no HTTP header can carry")
    return key
