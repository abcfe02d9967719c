"""TensorFlow is imported once, here, and so are the models and the server that the tests share.

The tests of the client run in process and with a server: a double, or the real one at host:port TF_SERVING_ADDRESS, which must
have the folder TF_SERVING_FOLDER at the same path.
"""

import importlib.util
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from cortex_api import Document, parse
from cortex_runtime.clients import tensorflow as client_module
from cortex_runtime.clients.tensorflow import TensorFlowClient
from cortex_runtime.models.repository import ModelRepository
from cortex_runtime.models.sync import ModelSync

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

REAL = os.environ.get("TF_SERVING_ADDRESS")


@pytest.fixture(scope="session")
def beside() -> Callable[[str], ModuleType]:
    """Return a module of this folder by name."""
    return _beside


def _beside(name: str) -> ModuleType:
    path = Path(__file__).with_name(f"{name}.py")
    spec = importlib.util.spec_from_file_location(f"tensorflow_tests_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def tf() -> ModuleType:
    import tensorflow

    return tensorflow


@pytest.fixture(scope="session")
def savedmodels(tf: ModuleType) -> ModuleType:
    return _beside("savedmodels")


@pytest.fixture(scope="session")
def serving(tf: ModuleType) -> ModuleType:
    return _beside("serving")


@pytest.fixture(scope="session")
def models(savedmodels: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of `savedmodels`."""
    folder = tmp_path_factory.mktemp("savedmodels")
    savedmodels.write_all(folder)
    return folder


@pytest.fixture(scope="session")
def session_double(serving: ModuleType) -> Iterator[Any]:
    double = serving.Double()
    double.up()
    yield double
    double.down()


@pytest.fixture
def double(session_double: Any) -> Any:
    """The double of TensorFlow Serving, with empty records."""
    session_double.slow.clear()
    session_double.reloads.clear()
    session_double.most = 0
    return session_double


@dataclass
class Opener:
    """Opens clients like the supervisor and a worker.

    address: of the server; None for in process. failed: the models whose loads have failed, once for each failure.
    """

    folder: Path
    address: str | None
    document: Any = None
    syncs: list[ModelSync] = field(default_factory=list)
    clients: list[TensorFlowClient] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    def __call__(self, spec: dict[str, Any], timeout: float = 30, again: bool = False) -> TensorFlowClient:
        """Open a client. again: of another process of the same replica."""
        handler = {"type": "tensorflow", "path": "handler.py", "models": spec}
        manifest = {"apiVersion": "cortex.dev/v1alpha1", "kind": "RealtimeAPI"}
        manifest |= {"metadata": {"name": "tested", "namespace": "default"}, "spec": {"handler": handler}}
        document = self.document = Document.of(parse(manifest))
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("CORTEX_TENSORFLOW_SERVING", self.address or "")
            if not again:
                sync = ModelSync(document, self.folder, self.folder)
                sync.start()
                self.syncs.append(sync)
            store = ModelRepository.open(document.spec.handler, self.folder, self.folder)
            store.failed = self.failed.append
        models = document.spec.handler.models
        client = client_module.open_client(
            store, models, self.address, size=models.cache_size, timeout=timeout
        )
        self.clients.append(client)
        return client

    def poll(self, client: TensorFlowClient) -> None:
        """Poll until nothing changes: files are used once two polls have seen the same."""
        while self.syncs[-1].poll() or self.syncs[-1].poll():
            client.refresh()


def _open(folder: Path, address: str | None) -> Iterator[Opener]:
    if REAL and address:
        folder = Path(os.environ["TF_SERVING_FOLDER"]) / folder.name
        folder.mkdir(parents=True)
    opener = Opener(folder, address)
    yield opener
    for client in opener.clients:
        client.close()
    if REAL and address:
        shutil.rmtree(folder)


@pytest.fixture(scope="session", params=["in process", "server"])
def way(request: pytest.FixtureRequest) -> str | None:
    """The address of the server, or None for in process."""
    if request.param == "in process":
        return None
    return REAL or f"127.0.0.1:{request.getfixturevalue('session_double').port}"


@pytest.fixture
def open_client(way: str | None, tmp_path: Path) -> Iterator[Opener]:
    """Return a function that opens clients, both ways."""
    yield from _open(tmp_path / "models", way)


@pytest.fixture(scope="module")
def open_for_module(way: str | None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Opener]:
    yield from _open(tmp_path_factory.mktemp("models"), way)


@pytest.fixture
def open_remote(double: Any, tmp_path: Path) -> Iterator[Opener]:
    """Return a function that opens clients of the double."""
    yield from _open(tmp_path / "models", f"127.0.0.1:{double.port}")
