"""`open_model`: the client of an ONNX model from its bytes."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cortex_api import Document, parse
from cortex_runtime.clients.onnx import ONNXClient
from cortex_runtime.models.repository import ModelRepository
from cortex_runtime.models.sync import ModelSync


def _openers(tmp_path: Path) -> Iterator[Callable[[bytes], ONNXClient]]:
    clients: list[ONNXClient] = []

    def open_model(content: bytes) -> ONNXClient:
        folder = tmp_path / str(len(clients))
        folder.mkdir()
        (folder / "m.onnx").write_bytes(content)
        manifest: dict[str, Any] = {
            "apiVersion": "cortex.dev/v1alpha1",
            "kind": "RealtimeAPI",
            "metadata": {"name": "tested"},
            "spec": {"handler": {"type": "onnx", "models": {"path": "m.onnx"}}},
        }
        document = Document.of(parse(manifest))
        ModelSync(document, folder / "models", folder).start()
        client = ONNXClient(ModelRepository.open(document.spec.handler, folder / "models", folder), 1)
        clients.append(client)
        client.preload()
        return client

    yield open_model
    for client in clients:
        client.close()


@pytest.fixture
def open_model(tmp_path: Path) -> Iterator[Callable[[bytes], ONNXClient]]:
    yield from _openers(tmp_path)


@pytest.fixture(scope="module")
def open_model_for_module(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Callable[[bytes], ONNXClient]]:
    yield from _openers(tmp_path_factory.mktemp("onnx"))
