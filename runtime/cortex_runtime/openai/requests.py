"""The paths of the OpenAI-compatible routes, and the checks of the parameters that the runtime reads. Pure."""

from collections.abc import Mapping
from typing import Any

from cortex_runtime.errors import StartError
from cortex_runtime.handler.interfaces import OPENAI
from cortex_runtime.openai.errors import ParameterError

CHAT = OPENAI["handle_chat_completions"]
COMPLETIONS = OPENAI["handle_completions"]
EMBEDDINGS = OPENAI["handle_embeddings"]
MODELS = "/v1/models"
REQUIRED = {CHAT: "messages", COMPLETIONS: "prompt", EMBEDDINGS: "input"}
"""The required parameter by path."""


def check(request: Mapping[str, Any], path: str) -> None:
    """Raise ParameterError for a parameter that the runtime reads and that is wrong."""
    name = REQUIRED[path]
    kinds = list if path == CHAT else (str, list)
    if name not in request:
        raise ParameterError(f"{name} is required", name, "missing_required_parameter")
    value = request[name]
    if not isinstance(value, kinds) or (isinstance(value, list) and not value):
        wanted = "a list of messages" if path == CHAT else "text, or a list"
        raise ParameterError(f"{name} must be {wanted}, and must not be empty", name)
    if isinstance(value, list):
        _check_items(name, value, path)
    if "model" in request and not isinstance(request["model"], str):
        raise ParameterError("model must be a string", "model")
    if not isinstance(request.get("stream", False), bool | None):
        raise ParameterError("stream must be true or false", "stream")
    if not isinstance(request.get("stream_options", {}), dict | None):
        raise ParameterError("stream_options must be an object", "stream_options")
    if path == EMBEDDINGS and request.get("encoding_format", "float") not in ("float", "base64", None):
        raise ParameterError("encoding_format must be float or base64", "encoding_format")


def _check_items(name: str, items: list[Any], path: str) -> None:
    """Raise ParameterError for an item that no client of OpenAI sends. Their content is the concern of the handler."""
    if path == CHAT:
        for index, message in enumerate(items):
            if not isinstance(message, dict) or not isinstance(message.get("role"), str):
                raise ParameterError(f"{name}[{index}] must be an object with a role, which is text", name)
        return
    # A list of texts, or of tokens, or of lists of tokens.
    kinds = {type(item) for item in items}
    if len(kinds) > 1 or not kinds <= {str, int, list}:
        raise ParameterError(f"{name} must be a list of texts, of tokens, or of lists of tokens", name)
    if list in kinds and not all(item and {type(token) for token in item} == {int} for item in items):
        raise ParameterError(f"{name} must be a list of texts, of tokens, or of lists of tokens", name)


def served_models(instance: Any, api: str) -> list[str]:
    """Return the names of the models: the attribute `served_models` of the handler, or the name of the API. Raises StartError."""
    found = getattr(instance, "served_models", None)
    if found is None:
        return [api]
    names = list(found) if isinstance(found, list | tuple) else []
    if not names or not all(isinstance(name, str) and name for name in names):
        raise StartError(
            "HandlerInvalid", f"served_models must be a list of names of models; got {found!r:.80}"
        )
    return names
