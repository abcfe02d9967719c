"""The dev cluster: enough of Kubernetes to run on one machine what the operator renders. For development and tests only.

`apiserver` is the API server, `controllers` the control plane, `node` the kubelet and the proxy of services. The last two are
HTTP clients of an API server. devcluster/README.md says what is supported.
"""

from cortex_devcluster.cluster import DevCluster, StartFailed

__all__ = ["DevCluster", "StartFailed"]
