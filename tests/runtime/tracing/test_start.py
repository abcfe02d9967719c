"""The start of a replica is a trace, whether it succeeds or not."""

from tests.runtime.onnx_models import write_model


def test_downloads_at_the_start_are_spans(serve, collector, tmp_path):
    write_model(tmp_path / "models" / "model.onnx", 2)
    spec = {"tracing": {"endpoint": collector.url, "sampling": 0}}
    serve(None, spec=spec, type="onnx", path=None, models={"path": str(tmp_path / "models")})
    (start,) = collector.wait(lambda spans: [each for each in spans if each.name == "start"])
    spans = collector.trace(start.trace, "start", "download project", "download models", "start workers")
    steps = sorted((each for each in spans.values() if each.parent), key=lambda each: each.start)
    assert [each.name for each in steps] == ["download project", "download models", "start workers"]
    assert {each.parent for each in steps} == {start.id}


def test_a_failed_start_is_an_error(serve, collector):
    replica = serve(
        "raise RuntimeError('secret')",
        wait=False,
        spec={"tracing": {"endpoint": collector.url, "sampling": 0}},
    )
    reason, _ = replica.cause_of_death()
    spans = collector.wait(lambda spans: [each for each in spans if each.name == "start" and each.is_error])
    assert [each.attributes["error.type"] for each in spans] == [reason]
