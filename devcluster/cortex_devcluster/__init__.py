"""The dev cluster: enough of a Kubernetes API server and a node to run what the operator renders, on one machine.

For development and tests only. `api`, `registry` and `store` are the API server; `workloads`, `garbage` and `scheduler` the
control plane; `node`, `pod`, `container` and `proxy` the node. The latter two talk to any API server over HTTP.
"""

from cortex_devcluster.cluster import DevCluster, StartFailed

__all__ = ["DevCluster", "StartFailed"]
