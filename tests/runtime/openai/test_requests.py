"""The checks of the parameters that the runtime reads."""

import pytest

from cortex_runtime.openai.errors import ParameterError
from cortex_runtime.openai.requests import CHAT, COMPLETIONS, EMBEDDINGS, check

USER = {"role": "user", "content": "hi"}


@pytest.mark.parametrize(
    ("path", "request_"),
    [
        (
            CHAT,
            {"messages": [USER, {"role": "assistant", "tool_calls": []}, {"role": "own", "content": None}]},
        ),
        (COMPLETIONS, {"prompt": "a"}),
        (COMPLETIONS, {"prompt": [[1, 2], [3]]}),
        (EMBEDDINGS, {"input": ["a", ""]}),
        (EMBEDDINGS, {"input": [1, 2]}),
    ],
)
def test_what_clients_of_openai_send_is_valid(path, request_):
    check(request_, path)


@pytest.mark.parametrize("message", [1, None, "hi", [], {}, {"content": "hi"}, {"role": 1, "content": "hi"}])
def test_a_message_must_have_a_role(message):
    with pytest.raises(ParameterError, match=r"messages\[1\] must be an object with a role") as refused:
        check({"messages": [USER, message]}, CHAT)
    assert refused.value.status == 400


@pytest.mark.parametrize(
    "items", [[None], ["a", 1], [1.5], [True], [{}], [[]], [["a"]], [[1], [None]], [[1], "a"]]
)
@pytest.mark.parametrize(("path", "name"), [(COMPLETIONS, "prompt"), (EMBEDDINGS, "input")])
def test_a_list_contains_texts_or_tokens(path, name, items):
    with pytest.raises(ParameterError, match=f"{name} must be a list of texts, of tokens, or of lists"):
        check({name: items}, path)
