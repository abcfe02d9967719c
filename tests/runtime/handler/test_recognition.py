"""The interface that a file has, and the complete message for each mistake."""

import sys

import pytest

from cortex_runtime.errors import StartError
from cortex_runtime.handler.interfaces import Form
from cortex_runtime.handler.recognition import load_code


@pytest.fixture(autouse=True)
def _no_handler_modules():
    """Remove the handlers of other tests from the imported modules, before and after."""

    def take():
        names = [
            name
            for name in sys.modules
            if name == "handler" or name.startswith(("handler_", "cortex_handler_"))
        ]
        return {name: sys.modules.pop(name) for name in names}

    before = take()
    yield
    take()
    sys.modules.update(before)


def write(tmp_path, source, name="handler.py"):
    path = tmp_path / name
    path.write_bytes(source if isinstance(source, bytes) else source.encode())
    return path


def refused(path, handler_type="python", kind="RealtimeAPI"):
    with pytest.raises(StartError) as error:
        load_code(path, handler_type, kind)
    return error.value.reason, error.value.message


@pytest.mark.parametrize(
    ("source", "handler_type", "kind", "interface", "form", "target"),
    [
        ("class Handler:\n    def handle_get(self): pass\n", "python", "RealtimeAPI", "Handler", Form.CLASS, "Handler"),
        ("class Handler:\n    def handle_async(self): pass\n", "onnx", "AsyncAPI", "Handler", Form.CLASS, "Handler"),
        ("class ONNXPredictor:\n    def predict(self): pass\n", "onnx", "AsyncAPI", "ONNXPredictor", Form.CLASS, "ONNXPredictor"),
        # A class has priority over functions; a class of another type is ignored.
        (
            "def predict(): pass\nclass PythonPredictor:\n    def predict(self): pass\nclass ONNXPredictor: pass\n",
            "python", "RealtimeAPI", "PythonPredictor", Form.CLASS, "PythonPredictor",
        ),
        ("def predict(payload): pass\nclass ONNXPredictor: pass\n", "python", "RealtimeAPI", "predict", Form.FUNCTIONS, None),
        ("def predict(): pass\n", "python", "AsyncAPI", "predict", Form.FUNCTIONS, None),
        (
            "def post_inference(x): pass\ndef predict(x): pass\n",
            "onnx", "RealtimeAPI", "pre_inference and post_inference", Form.STAGES, None,
        ),
    ],
)  # fmt: skip
def test_the_interface_of_a_file(tmp_path, source, handler_type, kind, interface, form, target):
    code = load_code(write(tmp_path, source), handler_type, kind)
    assert (code.interface.name, code.interface.form) == (interface, form)
    assert (code.type, code.kind, code.where) == (handler_type, kind, "handler.py")
    module = sys.modules["handler"]
    assert code.target is (vars(module)[target] if target else module)
    stages = ("post_inference",) if form is Form.STAGES else ()
    assert code.stages == {name: getattr(module, name) for name in stages}


def test_without_a_file_there_is_the_model_alone():
    code = load_code(None, "onnx")
    assert (code.interface.form, code.type, code.kind, code.target) == (
        Form.MODEL,
        "onnx",
        "RealtimeAPI",
        None,
    )
    assert load_code(None, "tensorflow", "AsyncAPI").kind == "AsyncAPI"


def test_a_file_that_is_not_there(tmp_path):
    path = tmp_path / "handler.py"
    assert refused(tmp_path / "none" / "handler.py") == (
        "HandlerNotFound", f"handler.path: file {tmp_path}/none/handler.py does not exist",
    )  # fmt: skip
    for name in ("handlers.py", "a.py", "b.txt"):
        (tmp_path / name).write_text("")
    assert refused(path) == (
        "HandlerNotFound",
        f"handler.path: file {path} does not exist; did you mean handlers.py? (Python files in this folder: a.py, handlers.py)",
    )
    (tmp_path / "handlers.py").unlink()
    assert refused(path)[1] == f"handler.path: file {path} does not exist (Python files in this folder: a.py)"
    path.mkdir()
    assert refused(path)[0] == "HandlerNotFound"


CLASS = "class Handler:\n"
OF_PYTHON = "(or class PythonPredictor, or function predict)"
OF_ONNX = "(or class ONNXPredictor, or function pre_inference / post_inference)"
VERBS = "handle_post, handle_get, handle_put, handle_patch, handle_delete or a method with @route"


@pytest.mark.parametrize(
    ("source", "handler_type", "kind", "message"),
    [
        (
            "class Handler:\n    def handle_post(self): pass\nclass PythonPredictor: pass\n",
            "python", "RealtimeAPI",
            "handler.py must define only one handler class; got Handler and PythonPredictor",
        ),
        ("Handler = 3\n", "python", "RealtimeAPI", "handler.py: Handler must be a class; got int"),
        (
            "class Handler: pass\nif True:\n    class Handler: pass\nclass Handler: pass\n",
            "python", "RealtimeAPI", "handler.py must define class Handler once; got 2 definitions, in lines 1, 4",
        ),
        (CLASS + "    handle_post = 3\n", "python", "RealtimeAPI", "handler.py: Handler.handle_post must be a method"),
        (
            "class Handler: pass\n", "python", "RealtimeAPI",
            f"handler.py: class Handler must define at least one of {VERBS}",
        ),
        (
            CLASS + "    def post(self): pass\n    def _handle_post(self): pass\n", "python", "RealtimeAPI",
            f"handler.py: class Handler must define at least one of {VERBS}",
        ),
        (
            CLASS + "    def do_handle_post(self): pass\n", "python", "RealtimeAPI",
            f"handler.py: class Handler must define at least one of {VERBS}; did you mean do_handle_post?",
        ),
        (
            "class PythonPredictor:\n    def predicts(self): pass\n    def prediction(self): pass\n", "python", "AsyncAPI",
            "handler.py: class PythonPredictor must define predict; did you mean predicts?",
        ),
        (
            CLASS + "    handle_post = None\n", "python", "RealtimeAPI",
            f"handler.py: class Handler must define at least one of {VERBS}; did you mean handle_post?",
        ),
        (
            CLASS + "    def handle_async(self): pass\n", "python", "RealtimeAPI",
            "handler.py: Handler.handle_async is a method of kind AsyncAPI; got kind RealtimeAPI; did you mean handle_post?",
        ),
        (
            CLASS + "    def handle_get(self): pass\n", "python", "AsyncAPI",
            "handler.py: Handler.handle_get is a method of kind RealtimeAPI; got kind AsyncAPI; did you mean handle_async?",
        ),
        *[
            (
                CLASS + f"    def {name}(self): pass\n    def handle_batch(self): pass\n", "python", "RealtimeAPI",
                "handler.py: Handler.handle_batch: BatchAPI is not supported; use a Kubernetes Job or an AsyncAPI",
            )
            for name in ("__init__", "handle_post")
        ],
        (
            CLASS + "    def handle_post(self): pass\n    def handle_gett(self): pass\n", "python", "RealtimeAPI",
            "handler.py: Handler.handle_gett is never called; did you mean handle_get?",
        ),
        (
            CLASS + "    def __init__(self): pass\n    def handle_post(this, paylod): pass\n", "python", "RealtimeAPI",
            "handler.py: Handler.handle_post: unknown argument 'paylod'; did you mean payload? "
            "(available: payload, query_params, headers)",
        ),
        (
            "class PythonPredictor:\n    def predict(self): pass\n    def post_predict(self, answer): pass\n",
            "python", "RealtimeAPI",
            "handler.py: PythonPredictor.post_predict: unknown argument 'answer' "
            "(available: response, payload, query_params, headers)",
        ),
        (
            CLASS + "    def handle_post(self): pass\n    def load_model(self, path): pass\n", "python", "RealtimeAPI",
            "handler.py: Handler.load_model: unknown argument 'path' (available: model_path)",
        ),
        (
            CLASS + "    def __init__(self, model): pass\n    def handle_post(self): pass\n", "python", "RealtimeAPI",
            "handler.py: Handler.__init__: unknown argument 'model' (available: config, metadata, metrics_client, "
            "python_client, model_client); tensorflow_client, onnx_client require another handler.type",
        ),
        (CLASS + "    def handle_post(): pass\n", "python", "RealtimeAPI",
            "handler.py: Handler.handle_post: the first argument must be self"),
        (
            CLASS + "    @staticmethod\n    def handle_post(self): pass\n", "python", "RealtimeAPI",
            "handler.py: Handler.handle_post: unknown argument 'self' (available: payload, query_params, headers)",
        ),
        (
            "def predict(payload, model): pass\n", "python", "RealtimeAPI",
            "handler.py: predict: unknown argument 'model' (available: payload, query_params, headers, sample, "
            "config, metadata)",
        ),
        (
            "def init(x): pass\ndef predict(payload): pass\n", "python", "RealtimeAPI",
            "handler.py: init: unknown argument 'x' (available: config, metadata, metrics_client, model_path, "
            "python_client, model_client); tensorflow_client, onnx_client require another handler.type",
        ),
        (
            "def pre_inference(x, payloads): pass\n", "onnx", "RealtimeAPI",
            "handler.py: pre_inference: unknown argument 'payloads'; did you mean payload? "
            "(available: payload, query_params, headers, config, metadata, signature)",
        ),
    ],
)  # fmt: skip
def test_code_that_does_not_keep_to_its_interface(tmp_path, source, handler_type, kind, message):
    assert refused(write(tmp_path, source), handler_type, kind) == ("HandlerInvalid", message)


@pytest.mark.parametrize(
    ("source", "handler_type", "message"),
    [
        (
            "class ONNXPredictor: pass\n", "python",
            "handler.py: class ONNXPredictor requires handler.type onnx; got python. Rename the class to PythonPredictor "
            "or Handler, or change handler.type",
        ),
        (
            "def handle_put(): pass\ndef handle_get(): pass\n", "python",
            f"handler.py: handle_get must be a method of class Handler; got a function {OF_PYTHON}",
        ),
        (
            "def handle_async(): pass\n", "onnx",
            f"handler.py: handle_async must be a method of class Handler; got a function {OF_ONNX}",
        ),
        (
            "def pre_inference(x): pass\ndef post_inference(x): pass\n", "python",
            "handler.py: post_inference requires handler.type onnx or tensorflow; with type python, define "
            f"class Handler {OF_PYTHON}",
        ),
        (
            "def predict(x): pass\n", "tensorflow",
            "handler.py: a function predict requires handler.type python; with type tensorflow, define class Handler "
            "(or class TensorFlowPredictor, or function pre_inference / post_inference)",
        ),
        ("class Task: pass\n", "python", f"handler.py: class Task: TaskAPI is not supported; use a Kubernetes Job {OF_PYTHON}"),
        ("Task = 3\n", "python", f"handler.py does not define class Handler {OF_PYTHON}"),
        ("", "python", f"handler.py does not define class Handler {OF_PYTHON}"),
        ("", "onnx", f"handler.py does not define class Handler {OF_ONNX}"),
        (
            "class _Handler: pass\nhandler = 1\n", "python", f"handler.py does not define class Handler {OF_PYTHON}",
        ),
        (
            "class HANDLER: pass\nclass Handlers: pass\n", "python",
            f"handler.py does not define class Handler; did you mean HANDLER? Rename it to Handler {OF_PYTHON}",
        ),
        (
            "class MyHandler: pass\n", "python",
            f"handler.py does not define class Handler; did you mean MyHandler? Rename it to Handler {OF_PYTHON}",
        ),
        (
            "class OnnxPredicter: pass\n", "onnx",
            f"handler.py does not define class ONNXPredictor; did you mean OnnxPredicter? Rename it to ONNXPredictor {OF_ONNX}",
        ),
        (
            "def predicts(): pass\n", "python",
            f"handler.py does not define function predict; did you mean predicts? Rename it to predict {OF_PYTHON}",
        ),
        ("def product(): pass\n", "python", f"handler.py does not define class Handler {OF_PYTHON}"),
        ("class predict: pass\n", "python", f"handler.py does not define class Handler {OF_PYTHON}"),
        (
            "def post_interference(): pass\n", "onnx",
            "handler.py does not define function post_inference; did you mean post_interference? "
            f"Rename it to post_inference {OF_ONNX}",
        ),
    ],
)  # fmt: skip
def test_code_without_an_interface(tmp_path, source, handler_type, message):
    assert refused(write(tmp_path, source), handler_type) == ("HandlerNotFound", message)


@pytest.mark.parametrize(
    "source",
    [
        # Methods of the other kind and helpers are allowed if there is a method to call.
        CLASS + "    def handle_post(self): pass\n    def handle_async(self): pass\n",
        CLASS + "    def handle_post(self): pass\n    def handle_results(self, x): pass\n    handle_gett = 3\n",
        CLASS + "    @staticmethod\n    def handle_post(payload): pass\n",
        CLASS + "    @classmethod\n    def handle_post(cls, payload): pass\n",
        "import functools\n"
        + CLASS
        + "    handle_post = functools.partial(lambda payload, x: x, x=1)\n    handle_get = None\n",
        CLASS + "    def handle_post(self): pass\n    def load_model(self, model_path): pass\n",
        CLASS + "    def handle_post(self): pass\n    def post_predict(self, x): pass\n",
        "class PythonPredictor:\n    def predict(self): pass\n    def post_predict(self, response, payload): pass\n",
        "class PythonPredictor:\n    def predict(self): pass\n    load_model = None\n",
        "class PythonPredictor:\n    def predict(self): pass\n    post_predict = None\n",
    ],
)  # fmt: skip
def test_valid_variants(tmp_path, source):
    assert load_code(write(tmp_path, source), "python").interface.form is Form.CLASS


NULL_BYTE = "SyntaxError" if sys.version_info >= (3, 11, 4) else "ValueError"


@pytest.mark.parametrize(
    ("source", "begins", "ends"),
    [
        ("def f(:\n", "handler.py is not valid Python: SyntaxError: invalid syntax (handler.py, line 1)\n", "syntax"),
        (b"x = '\xff'\n", "handler.py is not valid Python: SyntaxError: (unicode error) 'utf-8' codec can't decode", ""),
        (b"\0", f"handler.py is not valid Python: {NULL_BYTE}: source code string cannot contain null bytes\n", "null bytes"),
        ("x = 1\nraise ValueError('no weights')\n", "handler.py raised ValueError: no weights\n", "ValueError: no weights"),
        ("import sys\nsys.exit(3)\n", "handler.py raised SystemExit: 3\n", "SystemExit: 3"),
    ],
)  # fmt: skip
def test_a_file_with_an_import_error(tmp_path, source, begins, ends):
    reason, message = refused(write(tmp_path, source))
    assert reason == "HandlerImportError"
    assert message.startswith(begins)
    assert "ast.py" not in message
    assert ends in message.splitlines()[-1]


def test_a_file_that_with_another_suffix(tmp_path):
    path = write(tmp_path, "", "handler.txt")
    assert refused(path) == ("HandlerImportError", f"{path} must be a Python file (*.py)")


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("handler_a.py", "handler_a"),
        ("handler-b.py", "cortex_handler_handler-b"),
        ("json.py", "cortex_handler_json"),
        ("antigravity.py", "cortex_handler_antigravity"),
        ("pytest.py", "cortex_handler_pytest"),
    ],
)
def test_a_module_has_the_name_of_its_file_unless_it_exists(tmp_path, name, module):
    code = load_code(write(tmp_path, "def predict(payload): pass\n", name), "python")
    assert code.target.__name__ == module
    assert sys.modules[module] is code.target
    assert code.where == name
