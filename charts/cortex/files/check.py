"""Script of `helm test`: check the operator and the two kinds.

Arguments: URL of the operator, and the watched namespaces. Prints the results and exits with 1 if a check fails.
"""

import sys
import urllib.request
from collections.abc import Callable

import urllib3
from kubernetes import client, config


def check_health(address: str) -> str:
    """Return the health of the operator. Raises OSError if it is unhealthy or unreachable."""
    with urllib.request.urlopen(f"{address}/healthz", timeout=10) as response:
        return str(response.read().decode())


def count_objects(plural: str, namespaces: list[str]) -> str:
    """Return the number of objects of a kind in the given namespaces, or in all. Raises ApiException."""
    api = client.CustomObjectsApi()
    group, version = "cortex.dev", "v1alpha1"
    if not namespaces:
        return f"{len(api.list_cluster_custom_object(group, version, plural)['items'])} in the cluster"
    lists = {n: api.list_namespaced_custom_object(group, version, n, plural) for n in namespaces}
    return ", ".join(f"{len(content['items'])} in {namespace}" for namespace, content in lists.items())


def main(address: str, *namespaces: str) -> int:
    """Run all checks, even if some fail. Return the exit status."""
    try:
        config.load_incluster_config()
    except config.ConfigException:
        config.load_kube_config()
    checks: dict[str, Callable[[], str]] = {
        "operator": lambda: check_health(address),
        "realtimeapis": lambda: count_objects("realtimeapis", list(namespaces)),
        "asyncapis": lambda: count_objects("asyncapis", list(namespaces)),
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
