"""TensorFlow is imported once, here, and so are the models and the server that the tests share."""

import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


@pytest.fixture(scope="session")
def beside() -> Callable[[str], ModuleType]:
    """A module of this folder, by name."""
    return _beside


@pytest.fixture(scope="session")
def tf() -> ModuleType:
    import tensorflow

    return tensorflow


def _beside(name: str) -> ModuleType:
    """A module of this folder, imported late, since it imports TensorFlow."""
    spec = importlib.util.spec_from_file_location(
        f"tensorflow_tests_{name}", Path(__file__).with_name(f"{name}.py")
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def savedmodels(tf: ModuleType) -> ModuleType:
    return _beside("savedmodels")


@pytest.fixture(scope="session")
def serving(tf: ModuleType) -> ModuleType:
    return _beside("serving")
