"""A TrafficSplitter becomes one RealtimeAPI with a candidate, or an HTTPRoute."""

from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from cortex_api import parse
from cortex_api.candidate import candidate_manifest, merge
from cortex_cli.__main__ import main
from cortex_cli.convert.traffic_splitter import _difference

A = "- {name: a, kind: RealtimeAPI, handler: {type: python, path: a.py}, compute: {cpu: 1, mem: 1Gi}}\n"
B = "- {name: b, kind: RealtimeAPI, handler: {type: python, path: b.py}, compute: {cpu: 1}}\n"


def convert(text: str, *options: str, code: int = 0) -> tuple[dict[str, dict[str, Any]], str]:
    """Return the manifests by name, and the remarks."""
    result = CliRunner().invoke(main, ["convert", "--source=image", *options, "-"], input=text)
    assert result.exit_code == code, result.output
    return {one["metadata"]["name"]: one for one in yaml.safe_load_all(result.stdout) if one}, result.stderr


def splitter(apis: str, networking: str = "") -> str:
    return f"- name: s\n  kind: TrafficSplitter\n{networking}  apis: [{apis}]\n"


def api(name: str, rest: str) -> str:
    return f"- {{name: {name}, kind: RealtimeAPI, {rest}}}\n"


def test_two_apis_become_one_with_the_name_and_endpoint_of_the_splitter() -> None:
    text = (
        A + B + splitter("{name: a, weight: 80}, {name: b, weight: 20}", "  networking: {endpoint: both}\n")
    )
    found, stderr = convert(text)
    (name, manifest), *others = found.items()
    assert (name, others) == ("s", [])
    spec = manifest["spec"]
    assert spec["networking"] == {"endpoint": "/both"}
    assert spec["handler"]["path"] == "a.py"
    assert spec["candidate"]["handler"] == {"path": "b.py"}
    assert (spec["candidate"]["weight"], "mirror" in spec["candidate"]) == (20, False)
    parse(manifest)
    versions = convert(A + B)[0]
    for version, merged in (("a", manifest["spec"]), ("b", candidate_manifest(manifest)["spec"])):
        for field in ("handler", "compute", "autoscaling"):
            assert merged[field] == versions[version]["spec"][field]
    assert "! -:3: not" not in stderr
    assert "a and b are now one RealtimeAPI, s: a is its stable version, b its candidate" in stderr
    assert "spec.candidate.rollback: the default applies" in stderr
    assert spec["candidate"]["compute"] == {"mem": None}
    assert "spec.candidate contains null" in stderr


@pytest.mark.parametrize(
    ("apis", "stable", "weight", "mirror"),
    [
        ("{name: a, weight: 20}, {name: b, weight: 80}", "b.py", 20, None),
        ("{name: b, weight: 50}, {name: a, weight: 50}", "b.py", 50, None),
        ("{name: a, weight: 100}, {name: b, weight: 0}", "a.py", 0, None),
        ("{name: b, weight: 30, shadow: true}, {name: a, weight: 100}", "a.py", 0, 30),
        ("{name: a, weight: 90}, {name: b, weight: 10}, {name: c, weight: 30, shadow: true}", "a.py", 10, 30),
    ],
)
def test_the_larger_weight_is_the_stable_version_and_a_shadow_is_a_mirror(
    apis: str, stable: str, weight: int, mirror: int | None
) -> None:
    same_as_b = B.replace("name: b", "name: c")
    found, _ = convert(A + B + (same_as_b if "name: c" in apis else "") + splitter(apis))
    assert list(found) == ["s"]
    candidate = found["s"]["spec"]["candidate"]
    assert found["s"]["spec"]["handler"]["path"] == stable
    assert (candidate["weight"], candidate.get("mirror")) == (weight, mirror)


SPLIT = "{name: a, weight: 80}, {name: b, weight: 20}"
REFUSED = {
    "three APIs": (
        A + B + B.replace("name: b", "name: c"),
        "{name: a, weight: 80}, {name: b, weight: 10}, {name: c, weight: 10}",
        "it has 3 APIs, and an API has one candidate",
    ),
    "a shadow that is a third version": (
        A + B + A.replace("name: a", "name: c"),
        "{name: a, weight: 80}, {name: b, weight: 20}, {name: c, weight: 10, shadow: true}",
        "shadow c differs from b, and an API has one candidate",
    ),
    "one API": (A, "{name: a, weight: 100}", "it has one API, which needs no candidate"),
    "an API of another file": (A, SPLIT, "API b is not in the file, or is not converted"),
    "different fields": (
        A + api("b", "handler: {type: python, path: b.py}, update_strategy: {max_surge: 1}"),
        SPLIT,
        "a and b differ in updateStrategy, which both versions of an API share",
    ),
    "no CPU request": (
        A + api("b", "handler: {type: python, path: b.py}, compute: {cpu: null}"),
        SPLIT,
        "compute of b cannot be merged over that of a",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_a_candidate_cannot_express_is_refused_and_becomes_an_http_route(case: str) -> None:
    text, apis, reason = REFUSED[case]
    names = [line.split(",")[0].removeprefix("- {name: ") for line in text.splitlines()]
    found, stderr = convert(text + splitter(apis), code=1)
    assert list(found) == names, "the APIs are converted"
    line = len(names) + 2
    assert (
        f"! -:{line}: TrafficSplitter is not converted to a candidate: {reason}. The option `--gateway"
        in stderr
    )
    found, stderr = convert(text + splitter(apis), "--gateway=infra/outside")
    assert list(found) == [*names, "s"]
    assert f"! -:{line}: TrafficSplitter is now an HTTPRoute of Gateway infra/outside: {reason}" in stderr
    spec = found["s"]["spec"]
    assert spec["parentRefs"] == [{"name": "outside", "namespace": "infra"}]
    (rule,) = spec["rules"]
    assert rule["matches"] == [{"path": {"type": "PathPrefix", "value": "/s"}}]
    listed = yaml.safe_load(f"[{apis}]")
    assert rule["backendRefs"] == [
        {"name": f"api-{one['name']}", "port": 8080, "weight": one["weight"]}
        for one in listed
        if not one.get("shadow")
    ]
    mirrors = [f["requestMirror"] for f in rule["filters"] if f["type"] == "RequestMirror"]
    assert mirrors == [
        {"backendRef": {"name": f"api-{one['name']}", "port": 8080}, "percent": one["weight"]}
        for one in listed
        if one.get("shadow")
    ]


def test_an_api_of_two_splitters_stays_an_api() -> None:
    both = splitter(SPLIT) + splitter(SPLIT).replace("name: s", "name: t")
    found, stderr = convert(A + B + both, code=1)
    assert list(found) == ["a", "b"]
    assert stderr.count("a is an API of several TrafficSplitters") == 2


@pytest.mark.parametrize(
    ("apis", "words"),
    [
        ("{name: a, weight: 80}, {name: b, weight: 10}", "must sum to 100; got 90"),
        ("{name: a, weight: 80}, {name: a, weight: 20}", "API a may be listed once"),
        (
            "{name: a, weight: -1}, {name: b, weight: 101}",
            "apis[0].weight must be an integer from 0 to 100; got -1",
        ),
        ("{name: a, weight: 50%}, {name: b, weight: 50}", "got 50%"),
        ("{weight: 100}", "apis[0].name must be the name of an API"),
        ("", "apis must be a list of at least one API"),
        (
            "{name: a, weight: 100}, {name: b, weight: 1, shadow: true}, {name: c, weight: 1, shadow: true}",
            "at most one API may be the shadow",
        ),
        ("{name: a, weight: 100}, {name: q, weight: 0}", "q is of kind AsyncAPI; expected RealtimeAPI"),
    ],
)
def test_invalid_splitters_are_reported_and_their_apis_are_converted(apis: str, words: str) -> None:
    job = "- {name: q, kind: AsyncAPI, handler: {type: python, path: q.py}}\n"
    found, stderr = convert(A + B + job + splitter(apis), "--gateway=infra/outside", code=1)
    assert list(found) == ["a", "b", "q"]
    assert "! -:6: not valid: " in stderr
    assert words in stderr


def test_other_fields_of_a_splitter_are_reported() -> None:
    text = A + B + splitter(SPLIT, "  networking: {api_gateway: public}\n  color: red\n")
    for options in ([], ["--gateway=infra/outside"]):
        _, stderr = convert(text, *options)
        assert "networking.api_gateway is not converted: configure access in the gateway" in stderr
        assert "color is not converted: no equivalent exists" in stderr


def test_a_candidate_that_is_not_valid_is_reported_with_its_line() -> None:
    _, stderr = convert(A + api("b", "handler: {type: python, path: 3}") + splitter(SPLIT), code=1)
    assert "-:2: not valid: spec.handler.path" in stderr


@pytest.mark.parametrize("value", ["outside", "a/b/c", "/b", "a/"])
def test_a_gateway_has_a_namespace_and_a_name(value: str) -> None:
    result = CliRunner().invoke(main, ["convert", f"--gateway={value}", "-"], input=A)
    assert result.exit_code == 2
    assert f"must be NAMESPACE/NAME; got {value}" in result.output


LEAVES = st.sampled_from([1, 2, "x", [1], [1, 2], {}])
BRANCHES = st.dictionaries(st.sampled_from("abc"), LEAVES | st.dictionaries(st.sampled_from("abc"), LEAVES))
TREES = st.dictionaries(st.sampled_from("abc"), LEAVES | BRANCHES)


@settings(deadline=None)
@given(TREES, TREES)
def test_the_difference_merged_over_the_stable_version_is_the_candidate(before: Any, after: Any) -> None:
    assert merge(before, _difference(before, after, ()), ()) == after


@settings(deadline=None)
@given(
    st.sampled_from([{"path": "x"}, {"paths": [1]}, {"dir": "d"}]),
    st.sampled_from([{"path": "y"}, {"dir": "d"}]),
)
def test_one_location_of_models_replaces_the_other(before: Any, after: Any) -> None:
    found = _difference({"models": before}, {"models": after}, ("handler",))
    assert None not in found.get("models", {}).values()
    assert merge({"models": before}, found, ("handler",)) == {"models": after}
