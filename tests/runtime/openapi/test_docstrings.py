"""Docstrings: the first paragraph is the summary, and a block of JSON values contains examples."""

import pytest

from cortex_runtime.openapi.docstrings import parse


def test_the_first_paragraph_is_the_summary_and_the_rest_the_description():
    doc = parse("""Return the species
    of a flower.

    The nearest flower decides.

    It is cached.
    """)
    assert doc.summary == "Return the species of a flower"
    assert doc.description == "The nearest flower decides.\n\nIt is cached."
    assert doc.examples == ()


def test_a_long_first_paragraph_is_a_description():
    text = "word " * 40
    assert parse(text).summary == ""
    assert parse(text).description == text.strip()


@pytest.mark.parametrize("text", [None, "", "   \n"])
def test_no_docstring(text):
    assert parse(text) == parse(None)


def test_examples_have_names_and_responses_if_given():
    doc = parse("""Predict.

    Examples:
        small flower: {"length": 1.4} -> {"species": "setosa"}

        {
          "length": 5
        }
        words: "a: b -> c"
        all: -> [1, 2]

    More text.
    """)
    assert [(each.name, each.value) for each in doc.examples] == [
        ("small-flower", {"request": {"length": 1.4}, "response": {"species": "setosa"}}),
        ("example-2", {"request": {"length": 5}}),
        ("words", {"request": "a: b -> c"}),
        ("all", {"response": [1, 2]}),
    ]
    assert "length" not in doc.description
    assert "More text." in doc.description


@pytest.mark.parametrize(
    "block",
    [
        ">>> predict(1)\n        2",
        "Call it with a number.",
        '{"length": NaN}',
        '{"length": 1} ->',
        '{"length": 1',
    ],
)
def test_a_block_that_is_not_json_stays_in_the_description(block):
    doc = parse(f"Predict.\n\n    Example:\n        {block}\n")
    assert doc.examples == ()
    assert block.split("\n")[0] in doc.description
