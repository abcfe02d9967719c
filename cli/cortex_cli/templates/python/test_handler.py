import pytest

from cortex_runtime import UserError
from handler import Handler


def test_greeting_contains_the_name():
    assert Handler({"greeting": "Hello"}).handle_post({"name": "world"}) == {"text": "Hello, world"}


def test_a_body_without_a_name_is_refused():
    with pytest.raises(UserError):
        Handler({"greeting": "Hello"}).handle_post({})
