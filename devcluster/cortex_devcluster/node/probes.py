"""Probes of a container: httpGet, tcpSocket and exec, with the thresholds and messages of the kubelet."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import aiohttp

from cortex_devcluster.objects import Object, port_of

Exec = Callable[[list[str], float], Awaitable[tuple[int, str]]]


async def http_get(action: Object, container: Object, address: str, timeout: float) -> tuple[bool, str]:
    host = action.get("host") or address
    headers = {header["name"]: header["value"] for header in action.get("httpHeaders") or ()}
    try:
        url = f"http://{host}:{port_of(action['port'], container)}{action.get('path', '/')}"
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=timeout)) as session,
            session.get(
                url, headers={"User-Agent": "kube-probe/1.37", **headers}, allow_redirects=False
            ) as answer,
        ):
            if answer.status < 400:
                return True, ""
            return False, f"HTTP probe failed with statuscode: {answer.status}"
    except TimeoutError:
        return (
            False,
            f'Get "{url}": context deadline exceeded (Client.Timeout exceeded while awaiting headers)',
        )
    except (aiohttp.ClientError, OSError, ValueError) as error:
        return False, f"Get failed: {error}"


async def probe_once(probe: Object, container: Object, address: str, run: Exec) -> tuple[bool, str]:
    """Run a probe once. Return whether it succeeded, and the error message."""
    timeout = float(probe.get("timeoutSeconds", 1))
    if "httpGet" in probe:
        return await http_get(probe["httpGet"], container, address, timeout)
    if "tcpSocket" in probe:
        try:
            port = port_of(probe["tcpSocket"]["port"], container)
            _, writer = await asyncio.wait_for(asyncio.open_connection(address, port), timeout)
            writer.close()
            return True, ""
        except (OSError, ValueError, TimeoutError) as error:
            return False, f"dial tcp {address}: {error}"
    if "exec" in probe:
        code, output = await run(probe["exec"]["command"], timeout)
        return code == 0, output
    return False, "the dev cluster supports only httpGet, tcpSocket and exec probes"


async def run_probe(
    probe: Object,
    container: Object,
    address: str,
    run: Exec,
    verdict: Callable[[bool], Awaitable[None]],
    failure: Callable[[str], Awaitable[None]],
) -> None:
    """Run a probe periodically. Call `failure` after each failure, and `verdict` when a threshold is reached."""
    await asyncio.sleep(probe.get("initialDelaySeconds", 0))
    good = bad = 0
    while True:
        ok, message = await probe_once(probe, container, address, run)
        good, bad = (good + 1, 0) if ok else (0, bad + 1)
        if not ok:
            await failure(message)
        if good == probe.get("successThreshold", 1) or bad == probe.get("failureThreshold", 3):
            await verdict(ok)
        await asyncio.sleep(probe.get("periodSeconds", 10))
