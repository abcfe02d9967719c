"""What the runtime adds to every response, message by message."""

import asyncio

from starlette.responses import JSONResponse

from cortex_runtime.serving.admission import AdmittedRequest


def test_a_starlette_response_keeps_its_own_headers_but_for_those_of_the_runtime():
    sent = []

    async def send(message):
        sent.append(message)

    exchange = AdmittedRequest(0.0, "the-id")
    exchange.server_send = send
    made = JSONResponse({"a": 1}, 201, headers={"X-Request-Id": "its own", "x-mine": "1"})
    asyncio.run(made({"type": "http", "method": "POST"}, None, exchange))
    assert (exchange.sent, sent[0]["status"], sent[1]["body"]) == (201, 201, b'{"a":1}')
    assert sorted(sent[0]["headers"]) == [
        (b"content-length", b"7"), (b"content-type", b"application/json"), (b"x-mine", b"1"),
        (b"x-request-id", b"the-id"),
    ]  # fmt: skip
