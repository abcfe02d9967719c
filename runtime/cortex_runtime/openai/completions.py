"""Complete what `handle_chat_completions` and `handle_completions` return, to the objects of OpenAI.

A result is a text, a message (or its parts), a complete object with `choices`, or an iterator of such parts. Each is sent whole
or in chunks, as the request asks. Fields that the handler sets are kept. Numbers that it does not know, such as the usage, are
left out.
"""

import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from cortex_runtime.http.json_encoder import dumps
from cortex_runtime.http.json_parser import loads

Object = dict[str, Any]
_JOINED = ("content", "refusal", "reasoning_content", "reasoning", "text", "arguments")
"""Texts of which each chunk has a part."""


class Completion:
    """One answer. method: the name of the handler's method, for messages. has_messages: whether it is a chat."""

    def __init__(self, request: Mapping[str, Any], request_id: str, method: str, has_messages: bool) -> None:
        self._method = method
        self._chat = has_messages
        options = request.get("stream_options") or {}
        self._sends_usage = bool(options.get("include_usage"))
        self._base = {
            "id": f"{'chatcmpl' if has_messages else 'cmpl'}-{request_id}",
            "object": "chat.completion" if has_messages else "text_completion",
            "created": int(time.time()),
            "model": request["model"],
        }
        self._usage: Any = None
        self._began: set[int] = set()
        self._finished: set[int] = set()
        self._calls_tools = False

    def whole(self, result: Any) -> Object:
        """Return the complete object of a result that is not an iterator. Raises TypeError."""
        result = as_json(result)
        own = result if isinstance(result, dict) and "choices" in result else {}
        if own:
            choices = own["choices"]
        else:
            usage = result.pop("usage", None) if isinstance(result, dict) else None
            own = {} if usage is None else {"usage": usage}
            choices = [self._choice(each) for each in (result if isinstance(result, list) else [result])]
        choices = [{"index": index, "finish_reason": "stop", **each} for index, each in enumerate(choices)]
        return {**self._base, **own, "choices": choices}

    def chunks(self, part: Any) -> Iterator[Object]:
        """Yield the chunks for one part that an iterator has yielded. Raises TypeError."""
        part = as_json(part)
        if isinstance(part, dict) and "choices" in part:
            for choice in part["choices"]:
                self._note(choice)
            yield {**self._chunk_base(), **part}
            return
        finish = None
        delta: Object
        if isinstance(part, str):
            delta = {"content" if self._chat else "text": part}
        elif isinstance(part, dict):
            delta = dict(part)
            self._usage = delta.pop("usage", None) or self._usage
            finish = delta.pop("finish_reason", None)
            delta = delta.pop("delta", delta)
            if not delta and finish is None:
                return
        else:
            raise TypeError(f"{self._method} must yield str or dict; got {type(part).__name__}")
        yield self._chunk(0, delta, finish)

    def last_chunks(self) -> Iterator[Object]:
        """Yield the chunks that end the answer, unless the handler has yielded them."""
        if not self._began:
            yield self._chunk(0, {"content" if self._chat else "text": ""}, None)
        for index in sorted(self._began - self._finished):
            yield self._chunk(index, {}, "tool_calls" if self._calls_tools else "stop")
        if self._usage is not None and self._sends_usage:
            yield {**self._chunk_base(), "choices": [], "usage": self._usage}

    def in_chunks(self, result: Any) -> Iterator[Object]:
        """Yield the chunks of a result that is not an iterator. Raises TypeError."""
        whole = self.whole(result)
        self._usage = whole.get("usage")
        for choice in whole["choices"]:
            delta = choice.get("message", {}) if self._chat else {"text": choice.get("text", "")}
            calls = [{"index": index, **call} for index, call in enumerate(delta.get("tool_calls") or ())]
            yield self._chunk(choice["index"], {**delta, **({"tool_calls": calls} if calls else {})}, None)
            yield self._chunk(choice["index"], {}, choice["finish_reason"])
        yield from self.last_chunks()

    def joined(self, parts: Iterable[Any]) -> Object:
        """Return the complete object of the parts that an iterator has yielded. Raises TypeError."""
        chunks = [chunk for part in parts for chunk in self.chunks(part)]
        chunks += self.last_chunks()
        choices: dict[int, Object] = {}
        own: Object = {}
        for chunk in chunks:
            own |= {key: value for key, value in chunk.items() if key not in ("choices", "object")}
            for each in chunk["choices"]:
                choice = choices.setdefault(each.get("index", 0), {"index": each.get("index", 0)})
                choice["finish_reason"] = each.get("finish_reason") or choice.get("finish_reason")
                if self._chat:
                    _merge(choice.setdefault("message", {}), each.get("delta") or {})
                else:
                    choice["text"] = choice.get("text", "") + (each.get("text") or "")
        for choice in choices.values():
            for call in choice.get("message", {}).get("tool_calls", ()):
                call.pop("index", None)
        if self._usage is not None:
            own["usage"] = self._usage
        return {**self._base, "choices": [choices[index] for index in sorted(choices)], **own}

    def _choice(self, value: Any) -> Object:
        """Return the choice of a text or message."""
        if isinstance(value, str):
            return {"message": {"role": "assistant", "content": value}} if self._chat else {"text": value}
        if not isinstance(value, dict):
            raise TypeError(
                f"{self._method} must return str, dict, or an iterator; got {type(value).__name__}"
            )
        finish = value.pop("finish_reason", None)
        own = {} if finish is None else {"finish_reason": finish}
        if not self._chat:
            return {"text": "", **value, **own}
        message = value.get("message", value)
        if message.get("tool_calls"):
            own.setdefault("finish_reason", "tool_calls")
        return {"message": {"role": "assistant", "content": None, **message}, **own}

    def _chunk(self, index: int, delta: Object, finish: Any) -> Object:
        if self._chat and index not in self._began:
            delta = {"role": "assistant", **delta}
        content = {"delta": delta} if self._chat else {"text": "", **delta}
        choice = {"index": index, **content, "finish_reason": finish}
        self._note(choice)
        return {**self._chunk_base(), "choices": [choice]}

    def _note(self, choice: Mapping[str, Any]) -> None:
        index = choice.get("index", 0)
        self._began.add(index)
        if choice.get("finish_reason") is not None:
            self._finished.add(index)
        self._calls_tools |= bool((choice.get("delta") or {}).get("tool_calls"))

    def _chunk_base(self) -> Object:
        return {**self._base, "object": "chat.completion.chunk"} if self._chat else self._base


def as_json(value: Any) -> Any:
    """Return a value that JSON can represent, such as an object of the package openai, as dict, list, str or number."""
    if isinstance(value, str):
        return value
    return loads(dumps(value))


def _merge(target: Object, delta: Mapping[str, Any]) -> None:
    """Add a delta to a message: texts are joined, and tool calls too, by their index."""
    for key, value in delta.items():
        if key == "tool_calls":
            calls = target.setdefault("tool_calls", [])
            for place, call in enumerate(value or ()):
                index = call.get("index", place)
                known = next((each for each in calls if each.get("index") == index), None)
                if known is None:
                    known = {"index": index}
                    calls.append(known)
                _merge(known, call)
        elif isinstance(value, dict) and isinstance(target.get(key), dict):
            _merge(target[key], value)
        elif key in _JOINED and isinstance(value, str) and isinstance(target.get(key), str):
            target[key] += value
        elif value is not None or key not in target:
            target[key] = dict(value) if isinstance(value, dict) else value
