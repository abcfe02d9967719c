"""`helm test`: ADDRESS of the operator [NAMESPACE ...]. Says what it found; exit status 1 when something does not answer."""

import sys
import urllib.request
from collections.abc import Callable

import urllib3
from kubernetes import client, config


def healthy(address: str) -> str:
    """The operator says that it does its work; 503 raises."""
    with urllib.request.urlopen(f"{address}/healthz", timeout=10) as answer:
        return str(answer.read().decode())


def known(plural: str, namespaces: list[str]) -> str:
    """The API server lists this kind, in all namespaces or in those that are served."""
    api = client.CustomObjectsApi()
    group, version = "cortex.dev", "v1alpha1"
    if not namespaces:
        return f"{len(api.list_cluster_custom_object(group, version, plural)['items'])} in the cluster"
    found = {n: api.list_namespaced_custom_object(group, version, n, plural) for n in namespaces}
    return ", ".join(f"{len(listed['items'])} in {namespace}" for namespace, listed in found.items())


def main(address: str, *namespaces: str) -> int:
    """Every check runs, whatever the others find."""
    try:
        config.load_incluster_config()
    except config.ConfigException:
        config.load_kube_config()
    checks: dict[str, Callable[[], str]] = {
        "operator": lambda: healthy(address),
        "realtimeapis": lambda: known("realtimeapis", list(namespaces)),
        "asyncapis": lambda: known("asyncapis", list(namespaces)),
    }
    failed = False
    for name, check in checks.items():
        try:
            print(f"{name}: {check()}")
        except (OSError, client.ApiException, urllib3.exceptions.HTTPError) as error:
            failed = True
            print(f"{name}: {error}", file=sys.stderr)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
