"""Pods as processes: start, environment, probes, status and termination."""

from __future__ import annotations

from typing import Any

from tests.devcluster.conftest import alive


def state(kubectl: Any, name: str) -> dict[str, Any]:
    statuses = kubectl.get("pod", name)["status"].get("containerStatuses") or [{"state": {}}]
    found: dict[str, Any] = statuses[0]
    return found


def waiting(kubectl: Any, name: str) -> str:
    return str(state(kubectl, name)["state"].get("waiting", {}).get("reason"))


def test_process_gets_environment_files_and_arguments(kubectl: Any, make: Any) -> None:
    kubectl(
        "create", "-f", "-", stdin={**make.configmap("files", text="hello"), "binaryData": {"raw": "AAE="}}
    )
    code = (
        "import sys, os; e = os.environ\n"
        "print(e['ME'], e['text'], open(sys.argv[1]).read(), open(sys.argv[2], 'rb').read(), sys.argv[3])"
    )
    body = make.pod(
        "sees",
        code,
        args=["/etc/files/deep/text", "/etc/files/raw", "$(ME)!"],
        env=[{"name": "ME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
        envFrom=[{"configMapRef": {"name": "files"}}],
        volumeMounts=[{"name": "files", "mountPath": "/etc/files"}],
    )
    items = [{"key": "text", "path": "deep/text"}, {"key": "raw", "path": "raw"}]
    body["spec"]["volumes"] = [{"name": "files", "configMap": {"name": "files", "items": items}}]
    body["spec"]["restartPolicy"] = "Never"
    kubectl("apply", "-f", "-", stdin=body)
    kubectl("wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/sees", "--timeout=60s")
    assert kubectl("logs", "sees") == "sees hello hello b'\\x00\\x01' sees!\n"


def test_a_change_of_a_pods_annotations_updates_its_files_at_once(kubectl: Any, make: Any) -> None:
    code = (
        "import sys, time\nlast = None\nwhile True:\n"
        " try: now = open(sys.argv[1]).read()\n"
        " except FileNotFoundError: now = 'none'\n"
        " if now != last: print(now, flush=True)\n last = now; time.sleep(.05)"
    )
    body = make.pod(
        "reads", code, args=["/etc/files/text"], volumeMounts=[{"name": "files", "mountPath": "/etc/files"}]
    )
    body["spec"]["volumes"] = [{"name": "files", "configMap": {"name": "files", "optional": True}}]
    kubectl("apply", "-f", "-", stdin=body)
    kubectl("wait", "--for=condition=Ready", "pod/reads", "--timeout=60s")
    following = kubectl.popen("logs", "-f", "reads")
    try:
        assert following.stdout.readline() == "none\n"
        kubectl("create", "-f", "-", stdin=make.configmap("files", text="one"))
        kubectl("annotate", "pod", "reads", "split=1")
        assert following.stdout.readline() == "one\n"
        kubectl("patch", "configmap", "files", "--type=merge", "-p", '{"data":{"text":"two"}}')
        kubectl("annotate", "--overwrite", "pod", "reads", "split=2")
        assert following.stdout.readline() == "two\n"
        kubectl("delete", "configmap", "files")
        kubectl("annotate", "pod", "reads", "split-")
        assert following.stdout.readline() == "none\n"
    finally:
        following.terminate()
        following.wait()


def test_crashing_pod_backs_off_and_reports_the_cause(kubectl: Any, make: Any) -> None:
    code = "import sys;print('working');open(sys.argv[1],'w').write('out of luck');sys.exit(3)"
    kubectl("apply", "-f", "-", stdin=make.pod("dies", code, args=["/dev/termination-log"]))
    kubectl.until(
        lambda: waiting(kubectl, "dies") == "CrashLoopBackOff" and state(kubectl, "dies")["restartCount"]
    )
    ended = state(kubectl, "dies")["lastState"]["terminated"]
    assert (ended["exitCode"], ended["reason"], ended["message"]) == (3, "Error", "out of luck")
    assert kubectl("logs", "dies", "--previous") == "working\n"
    described = kubectl("describe", "pod", "dies")
    assert "out of luck" in described
    assert "Back-off restarting failed container=main" in described
    # Between two pauses, the container runs for a moment.
    kubectl.until(lambda: "CrashLoopBackOff" in kubectl("get", "pod", "dies"))


def test_termination_message_falls_back_to_the_log(kubectl: Any, make: Any) -> None:
    body = make.pod(
        "dies", "import sys;sys.exit('no such model')", terminationMessagePolicy="FallbackToLogsOnError"
    )
    kubectl("apply", "-f", "-", stdin=body)
    ended = kubectl.until(lambda: state(kubectl, "dies").get("lastState", {}).get("terminated"))
    assert ended["message"] == "no such model\n"


def test_unknown_image_is_not_pulled(kubectl: Any, make: Any) -> None:
    kubectl("apply", "-f", "-", stdin=make.pod("lost", "", image="nowhere/thing:1"))
    kubectl.until(lambda: waiting(kubectl, "lost") == "ImagePullBackOff")
    # An event follows the status that it explains.
    kubectl.until(lambda: 'Back-off pulling image "nowhere/thing:1"' in kubectl("get", "events"))
    output = kubectl("describe", "pod", "lost")
    assert 'Failed to pull image "nowhere/thing:1"' in output
    assert 'Back-off pulling image "nowhere/thing:1"' in output


def test_pod_with_an_unavailable_resource_stays_pending(kubectl: Any, make: Any) -> None:
    kubectl("apply", "-f", "-", stdin=make.pod("gpu", "", resources={"limits": {"nvidia.com/gpu": "1"}}))
    message = "0/1 nodes are available: 1 Insufficient nvidia.com/gpu."
    kubectl.until(lambda: message in kubectl("describe", "pod", "gpu"))
    kubectl.until(lambda: kubectl.get("pod", "gpu")["status"].get("conditions"))
    condition = kubectl.get("pod", "gpu")["status"]["conditions"][0]
    assert (condition["type"], condition["status"], condition["reason"]) == (
        "PodScheduled",
        "False",
        "Unschedulable",
    )
    assert kubectl("get", "pod", "gpu").splitlines()[1].split()[2] == "Pending"


def test_container_waits_for_missing_configuration(kubectl: Any, make: Any) -> None:
    reference = {"configMapKeyRef": {"name": "later", "key": "k"}}
    body = make.pod(
        "waits",
        "import os,time;print(os.environ['K'],flush=True);time.sleep(60)",
        env=[{"name": "K", "valueFrom": reference}],
    )
    kubectl("apply", "-f", "-", stdin=body)
    kubectl.until(lambda: waiting(kubectl, "waits") == "CreateContainerConfigError")
    assert state(kubectl, "waits")["state"]["waiting"]["message"] == 'configmap "later" not found'
    kubectl("create", "-f", "-", stdin=make.configmap("later", k="here"))
    kubectl("wait", "--for=condition=Ready", "pod/waits", "--timeout=60s")
    assert kubectl.until(lambda: kubectl("logs", "waits", "--tail=1")) == "here\n"


def test_init_containers_run_first_and_share_volumes(kubectl: Any, make: Any) -> None:
    mounts = [{"name": "shared", "mountPath": "/shared"}]
    body = make.pod(
        "two", "import sys;print(open(sys.argv[1]).read())", args=["/shared/f"], volumeMounts=mounts
    )
    first = dict(body["spec"]["containers"][0], name="first")
    first["command"] = ["python", "-c", "import sys;open(sys.argv[1],'w').write('from init')"]
    body["spec"] |= {
        "initContainers": [first],
        "volumes": [{"name": "shared", "emptyDir": {}}],
        "restartPolicy": "Never",
    }
    kubectl("apply", "-f", "-", stdin=body)
    kubectl("wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/two", "--timeout=60s")
    assert kubectl("logs", "two", "-c", "main") == "from init\n"


def test_failing_liveness_probe_restarts_the_container(kubectl: Any, make: Any) -> None:
    probe = {
        "exec": {"command": ["python", "-c", "raise SystemExit(1)"]},
        "periodSeconds": 1,
        "failureThreshold": 1,
    }
    kubectl("apply", "-f", "-", stdin=make.pod("sick", "import time;time.sleep(60)", livenessProbe=probe))
    kubectl.until(lambda: state(kubectl, "sick").get("restartCount"))
    output = kubectl("describe", "pod", "sick")
    assert "Liveness probe failed" in output
    assert "failed liveness probe, will be restarted" in output


def test_deletion_kills_the_process_after_the_grace_period(kubectl: Any, make: Any) -> None:
    polite = (
        "import os, signal, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: print('ignored', flush=True))\n"
        "print(os.getpid(), flush=True)\n"
        "while True: time.sleep(60)"
    )
    body = make.pod("stubborn", polite)
    body["spec"]["terminationGracePeriodSeconds"] = 1
    kubectl("apply", "-f", "-", stdin=body)
    kubectl("wait", "--for=condition=Ready", "pod/stubborn", "--timeout=60s")
    # Followed, because the pod may be gone before another command reads it.
    log = kubectl.popen("logs", "-f", "stubborn")
    changes = kubectl.popen("get", "pod", "stubborn", "--watch", "--no-headers")
    try:
        pid = int(log.stdout.readline())
        states = (line.split()[2] for line in changes.stdout)
        assert next(states) == "Running"
        kubectl("delete", "pod", "stubborn", "--wait=false")
        assert log.stdout.readline() == "ignored\n"
        assert "Terminating" in states
        kubectl("wait", "--for=delete", "pod/stubborn", "--timeout=60s")
        assert not alive(pid)
    finally:
        for process in (log, changes):
            process.terminate()
            process.wait()
