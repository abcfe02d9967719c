"""Models that are added, changed, broken and removed, in process and with a server."""

import shutil
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from cortex_runtime.errors import StartError, UserError
from cortex_runtime.models.repository import LoadFailed

ONES = {"a": [[1.0, 1.0, 1.0]], "b": [[1.0, 1.0, 1.0]]}


def factor(client, name=None, version=None):
    """Return the factor of the model of `Sum` that is served."""
    return client.predict(ONES, name, version)["scores"][0, 0] - 1


def test_a_single_model_has_no_name_to_give(open_client, models):
    client = open_client({"path": str(models / "sum")})
    assert factor(client) == 10
    assert factor(client, "whatever", "2") == 2
    assert client.info()[0]["name"] is None


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"path": "broken"}, "failed to load"),
        ({"path": "unsigned"}, "has no signature"),
        ({"path": "noinputs"}, "has no inputs"),
        ({"path": "several"}, "several signatures; set signatureKey to one of double, half"),
        (
            {"path": "several", "signatureKey": "third"},
            'no signature "third" (signatureKey); it has double, half',
        ),
    ],
)
def test_a_model_that_cannot_be_served_fails_the_start(open_client, models, spec, words):
    with pytest.raises(StartError) as raised:
        open_client({**spec, "path": str(models / spec["path"])})
    assert raised.value.reason == "ModelInvalid"
    assert words in raised.value.message


def test_in_a_folder_of_models_the_others_are_served(open_client, models):
    client = open_client({"dir": str(models)})
    assert factor(client, "sum") == 10
    assert sorted(client.problems()) == ["broken 1", "noinputs 1", "several 1", "unsigned 1"]
    assert open_client.failed.count("broken") == 1
    with pytest.raises(LoadFailed, match="failed to load model broken 1"):
        client.predict(ONES, "broken")


def test_versions_come_and_go(open_client, models, tmp_path):
    folder = tmp_path / "sum"
    shutil.copytree(models / "sum" / "1", folder / "1")
    client = open_client({"path": str(folder)})
    assert factor(client) == 1
    shutil.copytree(models / "sum" / "2", folder / "2")
    open_client.poll(client)
    assert factor(client) == 2
    assert client.info()[0]["loaded"] == ["1", "2"]
    shutil.rmtree(folder / "2")
    open_client.poll(client)
    assert factor(client) == 1
    assert client.info()[0]["loaded"] == ["1"]
    with pytest.raises(UserError, match="available: 1"):
        client.predict(ONES, None, 2)


def test_a_version_whose_files_change_is_loaded_anew(open_client, models, savedmodels, tmp_path):
    folder = tmp_path / "sum"
    shutil.copytree(models / "sum" / "1", folder / "1")
    client = open_client({"path": str(folder)})
    shutil.rmtree(folder / "1")
    savedmodels.write_sum(folder / "1", 7)
    open_client.poll(client)
    assert factor(client) == 7
    assert client.info()[0]["loaded"] == ["1"]


def test_no_request_is_lost_while_models_are_replaced(open_client, savedmodels, tmp_path):
    folder = tmp_path / "sum"
    savedmodels.write_sum(folder / "1", 1)
    first = open_client({"path": str(folder)})
    second = open_client({"path": str(folder)}, again=True)
    over = threading.Event()

    def ask(client):
        answers = set()
        while not over.is_set():
            answers.add(factor(client))
        return answers

    with ThreadPoolExecutor(2) as pool:
        asking = [pool.submit(ask, client) for client in (first, second)]
        try:
            for number in (2, 3, 4):
                savedmodels.write_sum(folder / "1", number)
                open_client.poll(first)
                second.refresh()
        finally:
            over.set()
        answers = [answer.result() for answer in asking]
    assert set.union(*answers) <= {1, 2, 3, 4}
    assert factor(first) == factor(second) == 4


@pytest.mark.parametrize("spec", [{}, {"cacheSize": 1}])
def test_the_previous_model_stays_if_its_successor_is_broken(
    open_client, models, savedmodels, tmp_path, spec
):
    folder = tmp_path / "sum"
    shutil.copytree(models / "sum" / "1", folder / "1")
    if spec and open_client.address is None:
        pytest.skip("in process, what left memory is read from where it lies")
    client = open_client({"path": str(folder), **spec})
    assert factor(client) == 1
    savedmodels.damage(folder / "1")
    open_client.poll(client)
    assert factor(client) == 1
    assert "failed to load" in client.problems()["model 1"]
    assert open_client.failed == ["model"]
    shutil.rmtree(folder / "1")
    savedmodels.write_sum(folder / "1", 7)
    open_client.poll(client)
    assert factor(client) == 7
    assert client.problems() == {}


def test_a_broken_new_version_does_not_become_latest(open_client, models, savedmodels, tmp_path):
    folder = tmp_path / "sum"
    shutil.copytree(models / "sum" / "1", folder / "1")
    client = open_client({"path": str(folder)})
    shutil.copytree(models / "sum" / "2", folder / "2")
    savedmodels.damage(folder / "2")
    open_client.poll(client)
    assert factor(client) == 1
    assert "failed to load" in client.problems()["model 2"]


def test_with_a_limit_models_are_loaded_on_request(open_client, models):
    client = open_client({"path": str(models / "sum"), "cacheSize": 2})
    assert client.info()[0]["loaded"] == []
    for version in (1, 2, 10, 1, 10):
        assert factor(client, None, version) == version
        assert str(version) in client.info()[0]["loaded"]
        assert len(client.info()[0]["loaded"]) <= 2
    assert client.info()[0]["loaded"] == ["1", "10"]


def test_a_limit_in_bytes(open_client, models):
    if open_client.address is None:
        pytest.skip("in process the limit is the cache's")
    one = sum(file.stat().st_size for file in (models / "sum" / "1").rglob("*") if file.is_file())
    client = open_client({"path": str(models / "sum"), "cacheBytes": str(int(one * 1.5))})
    for version in (1, 2):
        assert factor(client, None, version) == version
        assert client.info()[0]["loaded"] == [str(version)]
    small = open_client({"path": str(models / "sum"), "cacheBytes": "1000"})
    with pytest.raises(LoadFailed, match=r"models.cacheBytes allows 1000"):
        small.predict(ONES, None, 10)
