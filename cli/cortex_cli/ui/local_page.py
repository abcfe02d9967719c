"""The page of `cortex run`."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from cortex_api import AsyncAPI, RealtimeAPI
from cortex_cli.local.log_lines import LogLines
from cortex_cli.local.runtime import Program
from cortex_cli.ui import server
from cortex_cli.ui.local_cluster import NAMESPACE, LocalCluster


def start(
    api: RealtimeAPI | AsyncAPI,
    programs: Sequence[Program],
    port: int,
    project: Path,
    lines: Mapping[str, LogLines],
) -> str:
    """Serve the page of an API in a thread until this process exits, and return its URL with the token.

    The page has a port of its own: the admin port belongs to the runtime, which does not depend on the command line.
    """
    manifest = json.loads(api.model_dump_json(by_alias=True, exclude_unset=True))
    cluster = LocalCluster(manifest, programs, port, project, lines)
    page = server.prepare(lambda: cluster, "", 0, command="cortex run")
    page.start()
    path = f"/{manifest['kind'].lower()}/{NAMESPACE}/{manifest['metadata']['name']}"
    return page.url.replace("/?", f"{path}?")
