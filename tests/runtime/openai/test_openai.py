"""The OpenAI-compatible routes, with the client of OpenAI: complete answers, streams, embeddings, models and errors."""

import json
import socket

import httpx
import openai
import pytest

from ..conftest import PLAIN, Replica

HANDLER = """
import asyncio
import time
from pathlib import Path

import numpy as np

from cortex_runtime import UserError


class Handler:
    served_models = ["echo", "other"]

    def handle_chat_completions(self, request):
        text = request["messages"][-1]["content"]
        if text == "refuse":
            raise UserError("not this", status=422)
        if text == "fail":
            raise RuntimeError("secret")
        if text == "message":
            return {"content": "whole", "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}}
        return self.words(text)

    def words(self, text):
        try:
            for word in text.split():
                if word == "break":
                    raise RuntimeError("secret")
                if word == "late":
                    raise UserError("too late", status=409)
                if word == "forever":
                    Path("begun").touch()
                    while True:
                        time.sleep(0.01)
                        yield "x"
                yield word + " "
            yield {"usage": {"prompt_tokens": 2, "completion_tokens": 3, "total_tokens": 5}}
        finally:
            Path("closed").write_text(text)

    async def handle_completions(self, request):
        yield request["prompt"]
        await asyncio.sleep(0)
        yield "!"

    def handle_embeddings(self, request):
        given = request["input"]
        texts = [given] if isinstance(given, str) else given
        return np.array([[len(text), 0.1] for text in texts], np.float32)
"""
CHAT = [{"role": "user", "content": "one two"}]


def chat(text):
    return {"model": "echo", "messages": [{"role": "user", "content": text}]}


@pytest.fixture(scope="module")
def replica(serve_for_module) -> Replica:
    return serve_for_module(HANDLER)


def made(kind, url, key="none"):
    client = httpx.Client if kind is openai.OpenAI else httpx.AsyncClient
    return kind(base_url=f"{url}/v1", api_key=key, max_retries=0, http_client=client(trust_env=False))


@pytest.fixture
def client(replica):
    with made(openai.OpenAI, replica.url) as client:
        yield client


@pytest.fixture
async def aio(replica):
    async with made(openai.AsyncOpenAI, replica.url) as client:
        yield client


def test_a_chat_completion(client):
    answer = client.chat.completions.create(**chat("one two"))
    assert answer.choices[0].message.content == "one two "
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].finish_reason == "stop"
    assert (answer.model, answer.usage.total_tokens) == ("echo", 5)
    assert answer.id.startswith("chatcmpl-")
    assert answer.id.endswith(answer._request_id)


def test_a_chat_completion_in_chunks(client):
    stream = client.chat.completions.create(
        **chat("one two"), stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    texts = [each.choices[0].delta.content for each in chunks if each.choices]
    assert texts == ["one ", "two ", None]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].usage.total_tokens == 5


def test_a_complete_message_can_be_read_as_a_stream(client):
    with client.chat.completions.stream(**chat("message")) as stream:
        final = stream.get_final_completion()
    assert final.choices[0].message.content == "whole"
    answer = client.chat.completions.create(**chat("message"))
    assert answer.usage.total_tokens == 2


async def test_the_async_client(aio):
    answer = await aio.chat.completions.create(**chat("one two"))
    assert answer.choices[0].message.content == "one two "
    stream = await aio.chat.completions.create(**chat("one two"), stream=True)
    assert [part.choices[0].delta.content async for part in stream] == ["one ", "two ", None]
    found = await aio.embeddings.create(model="echo", input=["a", "bb"])
    assert [each.embedding[0] for each in found.data] == [1, 2]


@pytest.mark.parametrize("stream", [False, True])
def test_texts_of_the_older_route(client, stream):
    answer = client.completions.create(model="echo", prompt="hello", stream=stream)
    parts = list(answer) if stream else [answer]
    assert "".join(part.choices[0].text for part in parts) == "hello!"
    assert parts[-1].choices[0].finish_reason == "stop"


def test_embeddings_in_both_encodings(client):
    # The client asks for base64 unless it is told otherwise.
    for more in ({}, {"encoding_format": "float"}):
        found = client.embeddings.create(model="echo", input="hello", **more)
        assert found.data[0].embedding == pytest.approx([5, 0.1])
        assert (found.object, found.data[0].index) == ("list", 0)


def test_models_are_listed_and_retrieved(client):
    assert [each.id for each in client.models.list()] == ["echo", "other"]
    assert client.models.retrieve("other").id == "other"
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("none")
    assert caught.value.code == "model_not_found"


@pytest.mark.parametrize(
    ("call", "kind", "param", "code", "message"),
    [
        (chat("refuse"), openai.UnprocessableEntityError, None, None, "not this"),
        (chat("fail"), openai.InternalServerError, None, None, "internal server error"),
        (chat("break"), openai.InternalServerError, None, None, "internal server error"),
        ({**chat("a"), "model": "none"}, openai.NotFoundError, "model", "model_not_found", "does not exist"),
        (
            {**chat("a"), "messages": []},
            openai.BadRequestError,
            "messages",
            None,
            "must be a list of messages",
        ),
        ({**chat("a"), "stream": "yes"}, openai.BadRequestError, "stream", None, "must be true or false"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_errors_have_the_type_and_the_fields_of_openai(client, call, kind, param, code, message, stream):
    with pytest.raises(kind, match=message) as caught:
        client.chat.completions.create(**{"stream": stream, **call})
    error = caught.value
    wanted = "server_error" if error.status_code >= 500 else "invalid_request_error"
    assert (error.type, error.param, error.code) == (wanted, param, code)
    assert "secret" not in str(error)
    assert error.request_id


@pytest.mark.parametrize(("text", "message"), [("a break", "internal server error"), ("a late", "too late")])
def test_an_error_in_a_stream_is_its_last_event(client, text, message):
    parts = iter(client.chat.completions.create(**chat(text), stream=True))
    assert next(parts).choices[0].delta.content == "a "
    with pytest.raises(openai.APIError, match=message):
        next(parts)


@pytest.mark.parametrize(
    ("method", "path", "content", "status"),
    [
        ("GET", "/v1/chat/completions", b"", 405),
        ("POST", "/v1/models", b"", 405),
        ("GET", "/v1/none", b"", 404),
        ("POST", "/v1/chat/completions", b"{", 400),
        ("POST", "/v1/chat/completions", b"[]", 400),
        ("POST", "/v1/chat/completions", b"{}", 400),
        ("POST", "/v1/embeddings", b'{"input": []}', 400),
        ("POST", "/v1/embeddings", b'{"input": "a", "encoding_format": "hex"}', 400),
    ],
)
def test_every_error_below_v1_has_the_shape_of_openai(replica, method, path, content, status):
    answer = httpx.request(method, replica.url + path, content=content, trust_env=False)
    assert answer.status_code == status
    assert set(answer.json()) == {"error"}
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


def test_without_a_model_the_first_is_used(replica):
    answer = PLAIN.post(f"{replica.url}/v1/chat/completions", json={"messages": CHAT})
    assert answer.json()["model"] == "echo"


@pytest.mark.parametrize("stream", [True, False])
def test_a_generator_ends_when_its_client_disconnects(replica, stream):
    begun, closed = replica.project / "begun", replica.project / "closed"
    begun.unlink(missing_ok=True)
    closed.unlink(missing_ok=True)
    body = json.dumps({**chat("forever"), "stream": stream}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: test\r\ncontent-length: {len(body)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", replica.port), 60) as connection:
        connection.sendall(head.encode() + body)
        replica.until(begun.exists)
        assert not closed.exists()
    assert replica.until(closed.exists)


def test_requests_are_counted_by_route(replica, client):
    client.models.list()
    route = 'route="/v1/models",status="200"'
    assert replica.wait_metric(f'cortex_route_requests_total{{method="GET",{route}}}')


def test_the_routes_are_part_of_the_interface_that_a_candidate_must_have(replica):
    routes = PLAIN.get(f"{replica.admin}/interface").json()["routes"]
    assert {"path": "/v1/chat/completions", "method": "POST"} in routes


KEYED = """
class Handler:
    async def handle_chat_completions(self, request):
        return "hello"
"""


def test_keys_and_limits_hold_and_are_errors_of_openai(serve_for_module, tmp_path, monkeypatch):
    (tmp_path / "one").write_text("secret")
    monkeypatch.setenv("CORTEX_API_KEYS", str(tmp_path))
    replica = serve_for_module(KEYED, apiKeys={"secret": {"name": "keys"}}, maxBodySize="1000")
    with (
        made(openai.OpenAI, replica.url, "wrong") as client,
        pytest.raises(openai.AuthenticationError) as caught,
    ):
        client.models.list()
    assert caught.value.code == "invalid_api_key"
    with made(openai.OpenAI, replica.url, "secret") as client:
        # Without `served_models`, the model has the name of the API.
        (model,) = client.models.list()
        assert model.id == "tested"
        answer = client.chat.completions.create(model=model.id, messages=CHAT)
        assert answer.choices[0].message.content == "hello"
        with pytest.raises(openai.APIStatusError) as refused:
            client.chat.completions.create(model=model.id, messages=[{"role": "user", "content": "a" * 2000}])
        assert refused.value.status_code == 413
        assert refused.value.type == "invalid_request_error"


TYPED = """
from pydantic import BaseModel

class Message(BaseModel):
    role: str
    content: str

class Request(BaseModel):
    messages: list[Message]
    temperature: float = 1

class Handler:
    def handle_chat_completions(self, request: Request, headers) -> str:
        return f"{request.messages[0].content} {request.temperature} {headers['x-own']}"
"""


def test_a_request_may_have_a_type(serve_for_module):
    replica = serve_for_module(TYPED)
    with made(openai.OpenAI, replica.url) as client:
        own = {"x-own": "header"}
        answer = client.chat.completions.create(
            model="tested", messages=CHAT, temperature=0.5, extra_headers=own
        )
        assert answer.choices[0].message.content == "one two 0.5 header"
        with pytest.raises(openai.BadRequestError) as caught:
            client.chat.completions.create(
                model="tested", messages=CHAT, temperature="hot", extra_headers=own
            )
    assert caught.value.param == "temperature"


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("def handle_chat_completions(self, messages): ...", "unknown argument 'messages'"),
        ("def handle_chat_completion(self, request): ...", "did you mean handle_chat_completions?"),
        (
            "served_models = 'one'\n    def handle_embeddings(self, request): ...",
            "served_models must be a list of names of models",
        ),
    ],
)
def test_mistakes_are_found_at_start(serve_for_module, body, problem):
    replica = serve_for_module(f"class Handler:\n    {body}\n", wait=False)
    reason, message = replica.cause_of_death()
    assert reason == "HandlerInvalid"
    assert problem in message
