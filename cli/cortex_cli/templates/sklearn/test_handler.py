import json
from pathlib import Path

import pytest

from cortex_runtime import UserError
from handler import Handler

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def handler():
    return Handler({})


def test_the_sample_has_a_label(handler):
    response = handler.handle_post(json.loads((HERE / "sample.json").read_text()))
    assert response["label"] == "setosa"


def test_a_missing_measurement_is_refused(handler):
    with pytest.raises(UserError):
        handler.handle_post({})
