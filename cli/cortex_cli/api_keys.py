"""Options for the API key (handler.apiKeys) that `cortex get` and `cortex predict` send. The key is never printed."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from cortex_cli.apis import API

VARIABLE = "CORTEX_API_KEY"
OPTIONS = f"--api-key-file, --api-key or {VARIABLE}"
HEADER = "x-api-key"
"""The API server consumes the Authorization header, so it cannot carry the key through the proxy."""


def api_key_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options for an API key. The command receives it as `api_key`, or None."""

    @click.option(
        "--api-key",
        metavar="KEY",
        envvar=VARIABLE,
        show_envvar=True,
        help="API key, sent if the API requires one.",
    )
    @click.option(
        "--api-key-file",
        metavar="FILE",
        type=click.Path(path_type=Path),
        help="File with the API key, so that the key is not visible in the process list or the shell history.",
    )
    @functools.wraps(command)
    def wrapper(*arguments: Any, api_key: str | None, api_key_file: Path | None, **options: Any) -> Any:
        if api_key_file is not None:
            if click.get_current_context().get_parameter_source("api_key") is ParameterSource.COMMANDLINE:
                raise click.UsageError("--api-key and --api-key-file are mutually exclusive")
            api_key = _read(api_key_file)
        return command(*arguments, api_key=None if api_key is None else _validate(api_key), **options)

    return wrapper


def headers(api: API, key: str | None) -> dict[str, str]:
    """Return the header with the key, or none if the API requires no key: its handler would see the key."""
    return {HEADER: key} if key is not None and requires_key(api) else {}


def requires_key(api: API) -> bool:
    """Return whether an API requires a key from its clients."""
    return bool(api.live["spec"]["handler"].get("apiKeys"))


def _read(file: Path) -> str:
    try:
        return file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not valid UTF-8"
        raise click.ClickException(f"{file}: cannot be read: {reason}") from error


def _validate(key: str) -> str:
    """Strip and validate a key. The runtime strips the keys in the Secret too. Raises ClickException."""
    key = key.strip()
    if not key:
        raise click.ClickException("the API key is empty")
    if not (key.isascii() and key.isprintable()):
        raise click.ClickException("the API key contains characters that are not allowed in an HTTP header")
    return key
