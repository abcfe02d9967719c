"""The payload of a body by content type, and refused bodies: never an internal error, never a changed value."""

import asyncio
import gzip
import logging

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.datastructures import FormData

from cortex_runtime.errors import UserError
from cortex_runtime.http import request_body
from cortex_runtime.http.forms import max_fields, max_files
from cortex_runtime.http.request_body import decompress, parse

LIMIT = 100 << 20


def parsed(body, kind, limit=LIMIT):
    if isinstance(kind, str):
        kind = kind.encode("latin-1")
    return asyncio.run(parse(body, kind, limit))


def refused(body, kind, limit=LIMIT):
    with pytest.raises(UserError) as caught:
        parsed(body, kind, limit)
    return caught.value.status, caught.value.message


@pytest.mark.parametrize(
    ("kind", "body", "value"),
    [
        ("application/json", b'{"a": 1}', {"a": 1}),
        ("Application/JSON", b"[1]", [1]),
        ("application/json;charset=utf-8", "é".join('""').encode(), "é"),
        ('application/json; Charset="UTF-8"; x=y', b"[1]", [1]),
        ("application/json ; charset=us-ascii", b"[1]", [1]),
        ("application/json; charset=us-ascii", "é".join('""').encode(), "é"),
        ("application/json; charset=ASCII", "é".join('""').encode(), "é"),
        ("application/json; charset=latin-1", '"é"'.encode("latin-1"), "é"),
        ("application/json; charset=utf-16", '"é"'.encode("utf-16"), "é"),
        ("application/problem+json", b"[1]", [1]),
        ("application/vnd.api+JSON; version=2", b"[1]", [1]),
        ("application/jsonlines", b"1\n2\n", b"1\n2\n"),
        ("application/json-seq", b"\x1e1\n", b"\x1e1\n"),
        ("application/x-ndjson", b"1\n2\n", b"1\n2\n"),
        ("application/jsonp", b"f(1)", b"f(1)"),
        ("text/json", b"[1]", b"[1]"),
        ("text/plain", "é".encode(), "é"),
        ("TEXT/PLAIN; charset=latin-1", b"\xe9", "é"),
        ("text/plain; charset=latin-1; charset=utf-8", b"\xe9", "é"),
        ("text/plainer", b"\xff", b"\xff"),
        ("text/html", b"<p>", b"<p>"),
        ("text/plain2; charset=utf-8", b"\xff", b"\xff"),
        ("", b"{", b"{"),
        (";", b"{", b"{"),
        ("application", b"{", b"{"),
        ("application/json/", b"{", b"{"),
        ("application/json, text/plain", b"{", b"{"),
        ("+json", b"{", b"{"),
        ("multipart/form", b"{", b"{"),
        ("multipart/form-data-x; boundary=b", b"{", b"{"),
        ("multipart/mixed; boundary=b", b"--b--", b"--b--"),
        ("application/x-www-form-urlencoded2", b"a=1", b"a=1"),
        (b"application/json\xff", b"{", b"{"),
    ],
)
def test_the_media_type_is_compared_as_a_whole(kind, body, value):
    result = parsed(body, kind)
    assert (type(result), result) == (type(value), value)


@pytest.mark.parametrize(
    ("kind", "body", "status", "words"),
    [
        ("application/json", b"{", 400, "not valid JSON"),
        ("application/problem+json", b"{", 400, "not valid JSON"),
        ("application/json; charset=none-such", b"[]", 415, "none-such"),
        ("application/json; charset=utf-16", b"[", 400, "not valid utf-16"),
        ("application/json; charset=UTF_8", b'"\xff"', 400, "not valid JSON"),
        ("application/json; charset=utf-7", b'"+2AA-"', 400, "not valid JSON"),
        ("text/plain", b"\xff", 400, "not valid utf-8"),
        ("text/plain; charset=rot13", b"x", 415, "rot13"),
        ("text/plain; charset=idna", b"x", 415, "idna"),
        ("text/plain; charset=undefined", b"x", 415, "undefined"),
        ("text/plain; charset=Punycode", b"x", 415, "Punycode"),
        ("application/json; charset=punycode", b"1", 415, "punycode"),
        ("application/x-www-form-urlencoded; charset=unicode_escape", b"a=1", 415, "unicode_escape"),
        ("multipart/form-data; boundary=B; charset=punycode", b"--B--\r\n", 415, "punycode"),
        ("multipart/form-data", b"--b--", 400, "oundary"),
        ("multipart/form-data; boundary=", b"--b--", 400, "not a valid form"),
        ("multipart/form-data; boundary=b", b"", 400, "ends before its closing boundary"),
        ("multipart/form-data; boundary=b", b"junk", 400, "not a valid form"),
        ("multipart/form-data; boundary=b", b"--b\r\n\r\nx\r\n--b--", 400, "name"),
        ("application/x-www-form-urlencoded", b"a=%ff", 400, "not a valid form"),
        ("application/x-www-form-urlencoded; charset=none-such", b"a=1", 415, "none-such"),
    ],
)
def test_a_body_that_does_not_match_its_encoding_is_refused(kind, body, status, words):
    assert refused(body, kind)[0] == status
    assert words in refused(body, kind)[1]


ONE = "multipart/form-data; boundary=b"
MULTIPART = (
    b'--b-1\r\nContent-Disposition: form-data; name="flower"\r\n\r\niris\r\n'
    b'--b-1\r\nContent-Disposition: form-data; name="picture"; filename="a.png"\r\nContent-Type: image/png\r\n\r\n\x89PNG\r\n\r\n'
    b'--b-1\r\nContent-Disposition: form-data; name="last"\r\n\r\nx\r\n--b-1--'
)
KIND = "multipart/form-data; boundary=b-1"


@pytest.mark.parametrize("rest", [b"", b"\r\n", b"\r\nepilogue"])
def test_a_complete_form_has_all_its_fields(rest):
    form = parsed(MULTIPART + rest, KIND)
    assert (form["flower"], form["last"]) == ("iris", "x")
    assert (form["picture"].filename, form["picture"].file.read()) == ("a.png", b"\x89PNG\r\n")


def test_a_form_that_breaks_off_anywhere_is_refused():
    for end in range(len(MULTIPART)):
        status, message = refused(MULTIPART[:end], KIND)
        assert (status, message.startswith("the body is not a valid form: ")) == (400, True), MULTIPART[:end]


@pytest.mark.parametrize("size", [1, 1_500_000, 20_000_000])
def test_a_field_may_be_as_long_as_the_body(size):
    value = b"v" * size
    form = parsed(
        b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n' + value + b"\r\n--b--",
        ONE,
    )
    assert form["a"] == value.decode()
    assert parsed(b"a=" + value, "application/x-www-form-urlencoded")["a"] == value.decode()


def parts(number, more=""):
    head = f'--b\r\nContent-Disposition: form-data; name="a"{more}\r\n\r\n1\r\n'
    return (head * number + "--b--").encode()


def test_a_form_may_have_many_fields_and_files():
    assert len(parsed(parts(5000), ONE).getlist("a")) == 5000
    files = parsed(parts(3000, '; filename="f"'), ONE).getlist("a")
    assert [file.file.read() for file in files] == [b"1"] * 3000
    assert (
        len(parsed(b"&".join([b"a=1"] * 100_000), "application/x-www-form-urlencoded").getlist("a"))
        == 100_000
    )


def test_a_file_of_a_form_stays_in_memory():
    content = b"x" * 3_000_000
    body = b'--b\r\nContent-Disposition: form-data; name="a"; filename="f"\r\n\r\n' + content + b"\r\n--b--"
    upload = parsed(body, ONE)["a"]
    assert upload.file.read() == content
    assert upload.file._rolled is False


@pytest.mark.parametrize(
    ("limit", "fields", "files"),
    [
        (0, 10_000, 1_000),
        (640_064, 10_001, 1_000),
        (1_025_024, 16_016, 1_001),
        (LIMIT, 1_638_400, 102_400),
    ],
)
def test_how_many_fields_and_files_a_form_may_have(limit, fields, files):
    assert (max_fields(limit), max_files(limit)) == (fields, files)


@pytest.mark.parametrize("kind", [ONE, "application/x-www-form-urlencoded"])
def test_a_large_form_does_not_block_the_loop_and_a_small_one_needs_no_thread(kind):
    def body(size):
        value = b"v" * size
        field = b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n' + value + b"\r\n--b--"
        return field if kind == ONE else b"a=" + value

    async def suspends(size):
        turns = []
        asyncio.get_running_loop().call_soon(turns.append, True)
        await parse(body(size), kind.encode(), LIMIT)
        return bool(turns)

    assert not asyncio.run(suspends(1000))
    assert asyncio.run(suspends(500_000))


def test_maxbodysize_bounds_the_memory_of_a_form():
    """The fields of a form need much more memory than its bytes."""
    limit = 1000
    many = parts(max_fields(limit) + 1)
    assert "Too many fields" in refused(many, ONE, limit)[1]
    many = parts(max_files(limit) + 1, '; filename="f"')
    assert "Too many files" in refused(many, ONE, limit)[1]
    many = b"&" * max_fields(limit)
    assert "more than 10000 fields" in refused(many, "application/x-www-form-urlencoded", limit)[1]


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        (b"", []),
        (b"a=1&b=2&a=3", [("a", "1"), ("b", "2"), ("a", "3")]),
        (b"a&=b&&c==d", [("a", ""), ("", "b"), ("c", "=d")]),
        (b"a=x+y%2B%26%3d%20&caf%C3%A9=%E2%82%AC", [("a", "x y+&= "), ("café", "€")]),
        ("a=é".encode(), [("a", "é")]),
        (b"a=1;b=2", [("a", "1;b=2")]),
        (b"a=%zz%", [("a", "%zz%")]),
    ],
)
def test_urlencoded_fields(body, fields):
    form = parsed(body, "application/x-www-form-urlencoded")
    assert (type(form), form.multi_items()) == (FormData, fields)


def test_urlencoded_fields_in_another_charset():
    form = parsed(b"a=%E9\xe9", "application/x-www-form-urlencoded; charset=latin-1")
    assert form["a"] == "éé"


tokens = st.sampled_from(
    [
        *(
            "application",
            "json",
            "text",
            "plain",
            "multipart",
            "form-data",
            "x-www-form-urlencoded",
            "charset",
            "boundary",
        ),
        *("utf-8", "utf-7", "b", "/", "+", ";", "=", '"', " ", ",", "*", "''", "%41", "\xff"),
    ]
)
kinds = st.lists(tokens, max_size=10).map("".join) | st.text(st.characters(max_codepoint=255), max_size=40)
pieces = st.sampled_from(
    [
        b"--b",
        b"--",
        b"\r\n",
        b"Content-Disposition: form-data",
        b'; name="a"',
        b"; filename=f",
        b"\r\n\r\n",
        b"x",
    ]
)
bodies = st.binary(max_size=200) | st.lists(pieces, max_size=12).map(b"".join)


def value_or_status(function, *arguments):
    """Return the payload, or the status of the refusal; any other exception is an error."""
    try:
        return function(*arguments), None
    except UserError as error:
        return None, error.status


@settings(max_examples=1500, deadline=None, derandomize=True, database=None)
@given(kind=kinds | st.just(ONE), body=bodies)
def test_only_user_errors_are_raised(kind, body):
    value, status = value_or_status(parsed, body, kind)
    assert status in (None, 400, 415)
    if type(value) is FormData and kind.startswith("multipart"):
        assert b"--b--" in body or "boundary=b" not in kind


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(
    cut=st.integers(0, 200),
    junk=st.binary(max_size=20),
    encoding=st.sampled_from([b"gzip", b"x-gzip", b"br", b"", b"identity"]),
)
def test_a_compressed_body_is_complete_or_refused(cut, junk, encoding):
    content = b"content" * 20
    value, status = value_or_status(decompress, gzip.compress(content)[:cut] + junk, encoding, 1000)
    assert status in (None, 400, 413, 415)
    if encoding.endswith(b"gzip"):
        assert value in (None, content, b"")


def test_json_that_is_sent_as_a_form_is_logged_once(caplog, monkeypatch):
    logger = logging.Logger("cortex")
    logger.addHandler(caplog.handler)
    monkeypatch.setattr(request_body, "log", logger)
    request_body._warn_of_json.cache_clear()
    for _ in range(2):
        form = parsed(b'{"name": "world"}', "application/x-www-form-urlencoded")
        assert list(form) == ['{"name": "world"}']
    parsed(b"a=1", "application/x-www-form-urlencoded")
    (message,) = caplog.messages
    assert "Send the header content-type: application/json" in message
