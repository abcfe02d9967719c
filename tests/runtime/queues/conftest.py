"""The servers that the tests of queues share, started once when first needed."""

import os
from collections.abc import Iterator

import pytest

from tests.runtime.queues.servers import CREDENTIALS, S3, Moto, Nats


@pytest.fixture(scope="session")
def nats_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nats]:
    server = Nats(tmp_path_factory.mktemp("nats"))
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="session")
def sqs_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("sqs")
    moto, s3 = Moto(folder), S3(folder)
    before = {name: os.environ.get(name) for name in CREDENTIALS}
    os.environ.update(CREDENTIALS)
    try:
        moto.start()
        s3.start()
        yield f"sqs://{s3.bucket}/tests?region=eu-west-1&sqs={moto.url}&s3={s3.url}"
    finally:
        s3.kill()
        moto.kill()
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
