"""`@route` is checked before anything is called: each mistake is a StartError that names class, method and what is wrong."""

import textwrap

import pytest

from cortex_runtime.errors import StartError
from cortex_runtime.handler import recognition, routing


def load(folder, body, kind="RealtimeAPI", before=""):
    path = folder / "handler.py"
    head = f"from cortex_runtime import route\n{before}\nclass Handler:\n"
    path.write_text(head + textwrap.indent(textwrap.dedent(body), "    "))
    return recognition.load_code(path, "python", kind)


def test_decorated_methods_are_routes(tmp_path):
    code = load(
        tmp_path,
        """
        def handle_post(self, payload): ...

        @route("/items/{id:int}", method="get")
        async def item(self, id, query_params): ...

        @route("/embed")
        @route("/embeddings", method="PUT")
        def embed(self, payload, **more): ...

        @route("/ping", method="GET")
        @staticmethod
        def ping(): ...

        @staticmethod
        @route("/pong", method="GET")
        def pong(): ...

        @route("/chat", method="WEBSOCKET")
        async def chat(self, websocket): ...

        @route("/ui", method="MOUNT")
        def ui(self): ...

        def helper(self, anything): ...
        """,
    )
    assert [(each.verb, each.path, each.name, each.parameters) for each in routing.declared_routes(code)] == [
        ("GET", "/items/{id:int}", "item", ("id",)),
        ("POST", "/embed", "embed", ()),
        ("PUT", "/embeddings", "embed", ()),
        ("GET", "/ping", "ping", ()),
        ("GET", "/pong", "pong", ()),
        ("WEBSOCKET", "/chat", "chat", ()),
        ("MOUNT", "/ui", "ui", ()),
    ]


def test_routes_alone_are_an_api(tmp_path):
    code = load(tmp_path, '@route("/embed")\ndef embed(self, payload): ...')
    assert [each.path for each in routing.declared_routes(code)] == ["/embed"]


def test_an_overridden_method_without_a_decorator_is_not_a_route(tmp_path):
    before = 'class Base:\n    @route("/a")\n    def a(self): ...\n    @route("/b")\n    def b(self): ...\n'
    path = tmp_path / "handler.py"
    path.write_text(
        f"from cortex_runtime import route\n{before}\nclass Handler(Base):\n    def a(self): ...\n"
    )
    code = recognition.load_code(path, "python")
    assert [each.path for each in routing.declared_routes(code)] == ["/b"]


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ('@route("embed")\ndef a(self): ...', "the path must begin with /"),
        ('@route("/a b")\ndef a(self): ...', "the path must contain only characters that a URL path may contain"),
        ('@route("/a?b")\ndef a(self): ...', "the path must contain only characters that a URL path may contain"),
        ('@route("/{a")\ndef a(self): ...', "the path must contain only characters that a URL path may contain"),
        ('@route("/{}")\ndef a(self): ...', "{} is not a valid path parameter; write {name} or {name:int}"),
        ('@route("/{a-b}")\ndef a(self): ...', "{a-b} is not a valid path parameter"),
        ('@route("/{a:number}")\ndef a(self, a): ...', "{a:number}: the type must be one of str, path, int"),
        ('@route("/{a}/{a}")\ndef a(self, a): ...', "the path parameter a occurs twice"),
        ('@route("/{payload}")\ndef a(self, payload): ...', "the path parameter payload needs another name"),
        ('@route("/{id}")\ndef a(self): ...', "the method must take the path parameter id as an argument"),
        ('@route("/a", method="GETT")\ndef a(self): ...', "method must be one of GET, POST, PUT, PATCH, DELETE, "),
        ('@route("/a", method="GETT")\ndef a(self): ...', "; did you mean GET?"),
        ('@route("/a", method=["GET"])\ndef a(self): ...', "method must be one of GET, POST"),
        ('@route("/info")\ndef a(self): ...', "/info is reserved for the runtime; use another path"),
        ('@route("/v2/models")\ndef a(self): ...', "/v2 is reserved for the runtime"),
        ('@route("/docs/{a}")\ndef a(self, a): ...', "/docs is reserved for the runtime"),
        (
            '@route("/a")\ndef a(self): ...\n@route("/a")\ndef b(self): ...',
            "Handler.b: @route('/a', method='POST'): a already handles POST /a",
        ),
        (
            '@route("/{x}")\ndef a(self, x): ...\n@route("/{y}")\ndef b(self, y): ...',
            "a already handles POST /{x}",
        ),
        (
            '@route("/{x}")\ndef a(self, x): ...\n@route("/{y}", method="GET")\ndef b(self, y): ...',
            "name the path parameters as a does, in /{x}",
        ),
        (
            'def handle_post(self): ...\n@route("/")\ndef b(self): ...',
            "handle_post already handles POST /",
        ),
        ('@route("/a", method="WEBSOCKET")\ndef a(self, websocket): ...', "must be async: async def a(self, websocket)"),
        ('@route("/a", method="WEBSOCKET")\nasync def a(self): ...', "must take it: async def a(self, websocket)"),
        ('@route("/{a}", method="MOUNT")\ndef a(self): ...', "must not have parameters"),
        ('@route("/a/", method="MOUNT")\ndef a(self): ...', "must not end with /"),
        ('@route("/a", method="MOUNT")\nasync def a(self): ...', "must return the application; it must not be async"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_at_start(tmp_path, source, problem):
    with pytest.raises(StartError) as error:
        load(tmp_path, source)
    assert error.value.reason == "HandlerInvalid"
    assert error.value.message.startswith("handler.py: Handler.")
    assert problem in error.value.message


@pytest.mark.parametrize(
    ("source", "argument"),
    [
        ('@route("/items/{id}")\ndef a(self, id, ids): ...', "ids"),
        ('@route("/a", method="WEBSOCKET")\nasync def a(self, websocket, payload): ...', "payload"),
        ('@route("/a", method="MOUNT")\ndef a(self, payload): ...', "payload"),
    ],
)
def test_an_unknown_argument_is_named_at_start(tmp_path, source, argument):
    with pytest.raises(StartError, match=rf"handler\.py: Handler\.a: unknown argument '{argument}'"):
        load(tmp_path, source)


def test_an_async_api_has_no_routes(tmp_path):
    with pytest.raises(StartError, match="routes exist in a RealtimeAPI only"):
        load(tmp_path, 'def handle_async(self): ...\n@route("/a")\ndef a(self): ...', "AsyncAPI")


def test_a_function_cannot_be_a_route(tmp_path):
    path = tmp_path / "handler.py"
    path.write_text(
        'from cortex_runtime import route\n@route("/a")\ndef a(): ...\ndef predict(sample): ...\n'
    )
    with pytest.raises(StartError, match="handler\\.py: a: @route must decorate a method of a class"):
        recognition.load_code(path, "python")


def test_the_decorator_requires_its_path(tmp_path):
    with pytest.raises(StartError, match="@route takes a path"):
        load(tmp_path, "@route\ndef a(self): ...")


def test_the_more_specific_route_has_priority():
    paths = ["/{rest:path}", "/items/{id}", "/items/new", "/{a}/{b}", "/items/{id}/{rest:path}", "/items"]
    routes = [routing.Route(path, "GET", "a", ()) for path in paths]
    assert [each.path for each in sorted(routes, key=routing.specificity)] == [
        "/items", "/items/new", "/items/{id}", "/items/{id}/{rest:path}", "/{a}/{b}", "/{rest:path}",
    ]  # fmt: skip


def test_a_mounting_method_must_return_an_application(tmp_path):
    code = load(tmp_path, '@route("/ui", method="MOUNT")\ndef ui(self): return 3')
    with pytest.raises(StartError, match="must return an ASGI application, which is callable; got int"):
        routing.routes(code, code.target())


@pytest.mark.parametrize("path", ["/info", "/v2", "/v2/models/iris/infer", "/docs/page.js", "/openapi.json"])
def test_the_runtime_answers_its_own_paths(path):
    assert routing.is_runtime_path(path)


@pytest.mark.parametrize(
    "path", ["/", "", "/information", "/v2x", "/docs.html", "/v1/embeddings", "/items/info"]
)
def test_the_handler_answers_other_paths_also_those_that_begin_alike(path):
    assert not routing.is_runtime_path(path)
