import pytest

from cortex_runtime import UserError
from handler import Handler


def test_the_most_frequent_words_are_counted():
    assert Handler({"most": 1}).handle_async({"texts": ["one two two", "two three"]}) == {"two": 3}


def test_a_body_without_texts_is_refused():
    with pytest.raises(UserError):
        Handler({}).handle_async({"text": "one"})
