"""Objects that live as long as a worker are excluded from garbage collection; models that may be replaced are not."""

import httpx

HANDLER = """
import gc

LIBRARY = [[] for _ in range(3)]


class Node:
    def __init__(self):
        self.itself = self


class Handler:
    def __init__(self, config):
        self.state = Node()

    def handle_get(self):
        return [is_tracked(LIBRARY), is_tracked(self.state), is_tracked(Node())]


def is_tracked(value):
    return any(value is each for each in gc.get_objects())
"""
WITH_MODELS = """
    def __init__(self, python_client, config):
        self.client = python_client

    def load_model(self, model_path):
        return Node()

    def handle_get(self):
        return [is_tracked(LIBRARY), is_tracked(self.client.get_model())]
"""


def test_modules_and_the_handler_are_excluded(serve):
    assert httpx.get(serve(HANDLER).url).json() == [False, False, True]


def test_models_are_not_excluded(serve, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "file").write_text("weights")
    start, end = HANDLER.index("    def __init__(self, config)"), HANDLER.index("def is_tracked")
    source = HANDLER[:start] + WITH_MODELS.lstrip("\n") + "\n\n" + HANDLER[end:]
    api = serve(source, models={"path": str(tmp_path / "model")})
    assert httpx.get(api.url).json() == [False, True]
