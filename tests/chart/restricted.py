"""The Pod Security level "restricted" for Linux pods, as in the admission of Kubernetes 1.30 and later."""

from typing import Any

_VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
    "image",
}
_SYSCTLS = {"kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.ping_group_range"}


def violations(pod: dict[str, Any]) -> list[str]:
    """Return the violations of a pod spec; empty if the pod is admitted."""
    found = [f"{field} is true" for field in ("hostNetwork", "hostPID", "hostIPC") if pod.get(field)]
    found += [
        f"volume {volume['name']} is of a forbidden type"
        for volume in pod.get("volumes", ())
        if not set(volume) - {"name"} <= _VOLUMES
    ]
    shared = pod.get("securityContext", {})
    found += [f"sysctl {s['name']}" for s in shared.get("sysctls", ()) if s["name"] not in _SYSCTLS]
    containers = [*pod.get("initContainers", ()), *pod["containers"], *pod.get("ephemeralContainers", ())]
    for container in containers:
        own = container.get("securityContext", {})
        found += [f"{container['name']}: {words}" for words in _container(container, own, {**shared, **own})]
    return found


def _container(container: dict[str, Any], own: dict[str, Any], effective: dict[str, Any]) -> list[str]:
    capabilities = own.get("capabilities", {})
    checks = {
        "privileged": bool(own.get("privileged")),
        "allowPrivilegeEscalation is not false": own.get("allowPrivilegeEscalation") is not False,
        "capabilities are not dropped": "ALL" not in capabilities.get("drop", ()),
        "capabilities are added": not set(capabilities.get("add", ())) <= {"NET_BIND_SERVICE"},
        "runAsNonRoot is not true": effective.get("runAsNonRoot") is not True,
        "runs as root": effective.get("runAsUser") == 0,
        "no seccomp profile": effective.get("seccompProfile", {}).get("type")
        not in ("RuntimeDefault", "Localhost"),
        "procMount": own.get("procMount", "Default") != "Default",
        "SELinux user or role": bool({"user", "role"} & set(effective.get("seLinuxOptions", {}))),
        "AppArmor unconfined": effective.get("appArmorProfile", {}).get("type") == "Unconfined",
        "host ports": any(port.get("hostPort") for port in container.get("ports", ())),
    }
    return [message for message, is_violated in checks.items() if is_violated]
