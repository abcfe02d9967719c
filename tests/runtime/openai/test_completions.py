"""What a handler returns is completed to the objects of OpenAI: whole, in chunks, and joined from chunks."""

from dataclasses import dataclass

import numpy as np
import pytest

from cortex_runtime.openai import embeddings
from cortex_runtime.openai.completions import Completion

CALL = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}


def completion(has_messages=True, **request):
    return Completion({"model": "m", **request}, "id", "handle", has_messages)


@pytest.mark.parametrize(
    ("result", "message", "finish"),
    [
        ("hello", {"role": "assistant", "content": "hello"}, "stop"),
        ({"content": "hello"}, {"role": "assistant", "content": "hello"}, "stop"),
        (
            {"content": "hello", "finish_reason": "length"},
            {"role": "assistant", "content": "hello"},
            "length",
        ),
        (
            {"tool_calls": [CALL]},
            {"role": "assistant", "content": None, "tool_calls": [CALL]},
            "tool_calls",
        ),
        (
            {"choices": [{"message": {"role": "assistant", "content": "x"}}]},
            {"role": "assistant", "content": "x"},
            "stop",
        ),
    ],
)
def test_a_text_or_message_becomes_a_completion(result, message, finish):
    whole = completion().whole(result)
    assert whole["object"] == "chat.completion"
    assert (whole["id"], whole["model"]) == ("chatcmpl-id", "m")
    assert isinstance(whole["created"], int)
    assert whole["choices"] == [{"index": 0, "finish_reason": finish, "message": message}]
    assert "usage" not in whole


def test_fields_of_the_handler_are_kept():
    own = {"id": "own", "model": "own-model", "usage": {"total_tokens": 3}, "choices": [], "extra": 1}
    whole = completion().whole(own)
    assert {key: whole[key] for key in own} == own
    assert completion().whole({"content": "a", "usage": {"total_tokens": 3}})["usage"] == {"total_tokens": 3}


def test_a_list_is_one_choice_each():
    whole = completion().whole(["a", "b"])
    assert [(each["index"], each["message"]["content"]) for each in whole["choices"]] == [(0, "a"), (1, "b")]


def test_an_object_of_another_type_is_read_as_its_json():
    @dataclass
    class Message:
        content: str

    assert completion().whole(Message("a"))["choices"][0]["message"]["content"] == "a"


@pytest.mark.parametrize("result", [None, 4, [4]])
def test_another_result_is_an_error_that_names_the_method(result):
    with pytest.raises(TypeError, match="handle must return str, dict, or an iterator"):
        completion().whole(result)


def test_parts_become_chunks_with_one_role_and_one_end():
    answer = completion(stream_options={"include_usage": True})
    found = [
        *answer.chunks("a"),
        *answer.chunks({"content": "b"}),
        *answer.chunks({"usage": {"total_tokens": 2}}),
    ]
    found += answer.last_chunks()
    assert {each["object"] for each in found} == {"chat.completion.chunk"}
    assert [each["choices"][0] for each in found[:-1]] == [
        {"index": 0, "delta": {"role": "assistant", "content": "a"}, "finish_reason": None},
        {"index": 0, "delta": {"content": "b"}, "finish_reason": None},
        {"index": 0, "delta": {}, "finish_reason": "stop"},
    ]
    assert (found[-1]["choices"], found[-1]["usage"]) == ([], {"total_tokens": 2})
    assert len({each["id"] for each in found}) == 1


def test_the_usage_is_sent_only_if_it_is_asked_for():
    answer = completion()
    assert list(answer.chunks({"usage": {"total_tokens": 2}})) == []
    assert all("usage" not in each for each in answer.last_chunks())


def test_a_handler_can_end_its_chunks_itself():
    answer = completion()
    found = [*answer.chunks("a"), *answer.chunks({"finish_reason": "length"}), *answer.last_chunks()]
    assert [each["choices"][0]["finish_reason"] for each in found] == [None, "length"]


def test_complete_chunks_are_kept():
    chunk = {"id": "own", "choices": [{"index": 0, "delta": {"content": "a"}, "finish_reason": "stop"}]}
    answer = completion()
    (found,) = [*answer.chunks(chunk), *answer.last_chunks()]
    assert {**found, **chunk} == found


def test_parts_are_joined_to_a_completion():
    parts = [
        "a",
        {"content": "b"},
        {
            "tool_calls": [
                {"index": 0, "id": "x", "type": "function", "function": {"name": "f", "arguments": '{"a'}}
            ]
        },
        {"tool_calls": [{"index": 0, "function": {"arguments": '":1}'}}]},
        {"usage": {"total_tokens": 9}},
    ]
    whole = completion().joined(parts)
    assert whole["object"] == "chat.completion"
    assert whole["usage"] == {"total_tokens": 9}
    assert whole["choices"] == [
        {
            "index": 0,
            "finish_reason": "tool_calls",
            "message": {
                "role": "assistant",
                "content": "ab",
                "tool_calls": [
                    {"id": "x", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}
                ],
            },
        }
    ]


def test_a_completion_becomes_chunks():
    found = list(
        completion(stream_options={"include_usage": True}).in_chunks({"content": "a", "usage": {"n": 1}})
    )
    assert [each["choices"] for each in found] == [
        [{"index": 0, "delta": {"role": "assistant", "content": "a"}, "finish_reason": None}],
        [{"index": 0, "delta": {}, "finish_reason": "stop"}],
        [],
    ]
    assert found[-1]["usage"] == {"n": 1}


def test_texts_of_the_older_route():
    whole = completion(has_messages=False).whole("a")
    assert (whole["object"], whole["id"]) == ("text_completion", "cmpl-id")
    assert whole["choices"] == [{"index": 0, "finish_reason": "stop", "text": "a"}]
    assert completion(has_messages=False).joined(["a", "b"])["choices"][0]["text"] == "ab"


@pytest.mark.parametrize(
    ("result", "given", "expected"),
    [
        ([[1, 2]], "a", [[1, 2]]),
        ([1, 2], "a", [[1, 2]]),
        (np.array([1, 2], np.float32), "a", [[1, 2]]),
        (np.array([[1, 2], [3, 4]]), ["a", "b"], [[1, 2], [3, 4]]),
        ([np.array([1, 2]), [3, 4]], ["a", "b"], [[1, 2], [3, 4]]),
        ({"embeddings": [[1, 2]]}, [5, 6], [[1, 2]]),
        ({"data": [{"embedding": [1, 2]}]}, ["a"], [[1, 2]]),
    ],
)
def test_vectors_become_embeddings(result, given, expected):
    whole = embeddings.whole(result, {"model": "m", "input": given})
    assert (whole["object"], whole["model"]) == ("list", "m")
    assert [np.asarray(each["embedding"]).tolist() for each in whole["data"]] == expected
    assert [each["index"] for each in whole["data"]] == list(range(len(expected)))
    encoded = embeddings.whole(result, {"model": "m", "input": given, "encoding_format": "base64"})
    assert encoded["data"][0]["embedding"] == "AACAPwAAAEA="


def test_usage_and_further_fields_are_kept():
    whole = embeddings.whole(
        {"embeddings": [[1.0]], "usage": {"total_tokens": 3}}, {"model": "m", "input": "a"}
    )
    assert whole["usage"] == {"total_tokens": 3}


def test_a_wrong_number_of_vectors_is_an_error():
    with pytest.raises(ValueError, match="returned 1 vectors for 2 inputs"):
        embeddings.whole([[1, 2]], {"model": "m", "input": ["a", "b"]})
