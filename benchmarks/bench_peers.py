"""`make bench-peers`: compare the runtime with other model servers. Only the ratios are meaningful.

Servers run on one core and the load generator on another; each server has one worker process if possible. In each round, Cortex
and one peer are started and measured in alternating slices, so that other load on the machine affects both. No other server runs
at the same time. Results are written to benchmarks/results/; `bench_peers.py --from FILE` prints the tables of a previous run.
"""

import argparse
import csv
import json
import os
import platform
import re
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import processes
from bench_runtime import HERE, Failed, measure, output_of, pinned
from peer_chart import chart
from peer_servers import CORTEX, PEERS, PeerServer, Serving, make_network, prepare, serving
from peer_tables import OPEN_LOOP, OURS, Row, tables

CONNECTIONS = {
    "trivial": 16,
    "iris": 16,
    "batching": 32,
    "v2-rest": 16,
    "v2-grpc": 16,
    "v2-json-1mb": 4,
    "v2-binary-1mb": 4,
    "v2-grpc-1mb": 4,
}
IDLE_S = 1.0
TRIES = 2
ARRIVALS = 3
"""Duration of the Poisson arrivals, in slices."""


class Run:
    """A benchmark run and its rows.

    seconds: duration of a slice. cores: the first is for the servers, the last for the load generator.
    """

    def __init__(self, seconds: float, slices: int, cores: list[int]) -> None:
        self.seconds, self.slices = seconds, slices
        self.server, self.load = cores[:1], cores[-1]
        self.wrk = shutil.which("wrk")
        self.rows: list[Row] = []

    def pair(self, work: str, peer: PeerServer, number: int) -> None:
        """Measure a round of a workload with Cortex and a peer. Raises Failed; the rows until then are kept."""
        with ExitStack() as stack:
            two = [
                (contestant, stack.enter_context(self._up(work, peer, contestant, number)))
                for contestant in (CORTEX, peer)
            ]
            for contestant, server in two:
                self._load(work, contestant, server, 1)  # Warm up.
            rates: dict[str, list[float]] = {contestant.name: [] for contestant, _ in two}
            for part in range(self.slices):
                for contestant, server in two:
                    before = _cpu(server)
                    rate = self._load(work, contestant, server, self.seconds)
                    spent = _cpu(server) - before
                    rates[contestant.name].append(rate)
                    row = Row(work, peer.name, contestant.name, (number - 1) * self.slices + part + 1, "", "")
                    self._note(row, "requests_per_second", rate)
                    self._note(row, "cpu_us", spent / (rate * max(1, round(self.seconds))) * 1e6)
            if work == OPEN_LOOP:
                half = {name: sum(found) / len(found) / 2 for name, found in rates.items()}
                for contestant, server in reversed(two):
                    self._open_loop("", peer, contestant, server, half[peer.name], number)
                self._open_loop("own_", peer, CORTEX, two[0][1], half[OURS], number)

    @contextmanager
    def _up(self, work: str, peer: PeerServer, contestant: PeerServer, number: int) -> Iterator[Serving]:
        """Start a server, record its start time and memory, and yield it."""
        with serving(contestant, work, self.server) as server:
            spent = _cpu(server)
            time.sleep(IDLE_S)
            members = processes.family(server.process.pid)
            resident, share = processes.memory(members)
            row = Row(work, peer.name, contestant.name, number, "", "")
            self._note(row, "start_s", server.start_s)
            self._note(row, "start_cpu_s", spent)
            self._note(row, "rss_mib", resident)
            self._note(row, "pss_mib", share)
            self._note(row, "processes", len(members))
            yield server

    def _load(self, work: str, contestant: PeerServer, server: Serving, seconds: float) -> float:
        question, connections = contestant.questions[work], CONNECTIONS[work]
        if question.is_grpc:
            command = [sys.executable, str(HERE / "grpc_loop.py"), str(server.port), question.path]
            command += [str(connections), str(seconds)]
            assert isinstance(question.body, bytes)
            return float(output_of(pinned([self.load], command), question.body))
        return measure(
            server.port,
            question.body,
            seconds,
            self.load,
            self.wrk,
            path=question.path,
            connections=connections,
            headers=question.headers,
        )

    def _open_loop(
        self, prefix: str, peer: PeerServer, contestant: PeerServer, server: Serving, rate: float, number: int
    ) -> None:
        """Measure latency with Poisson arrivals. Equal rates have equal arrivals."""
        question = contestant.questions[OPEN_LOOP]
        command = [sys.executable, str(HERE / "open_loop.py"), str(server.port), question.path, str(rate)]
        command += [str(ARRIVALS * self.seconds), str(number)]
        body = question.body.encode() if isinstance(question.body, str) else question.body
        found = json.loads(output_of(pinned([self.load], command), body))
        row = Row(OPEN_LOOP, peer.name, contestant.name, number, "", "")
        self._note(row, f"{prefix}rate", rate)
        for name in ("p50", "p99", "p999", "late"):
            self._note(row, f"{prefix}{name}_ms", found[name] * 1e3)
        self._note(row, f"{prefix}reconnects", found["reconnects"])

    def _note(self, row: Row, measured: str, value: float) -> None:
        text = f"{value:.4g}" if value < 1000 else f"{value:.0f}"
        self.rows.append(Row(row.work, row.peer, row.contestant, row.number, measured, text))


def _cpu(server: Serving) -> float:
    return sum(member.cpu for member in processes.family(server.process.pid))


def how(options: argparse.Namespace, cores: list[int], wrk: str | None) -> str:
    """Describe the machine and the method in one line."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    tool = "wrk" if wrk else "closed_loop.py, which brings the ratios closer to 1"
    return (
        f"{len(cores)} cores ({models[0] if models else platform.machine()}), Python {platform.python_version()}; "
        f"in each round {options.slices} slices of {options.seconds:g} s by {tool}, "
        f"and {ARRIVALS * options.seconds:g} s of Poisson arrivals"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--slices", type=int, default=3, help="slices of load for each server in a round")
    parser.add_argument("--seconds", type=float, default=2.0, help="duration of a slice")
    parser.add_argument("--peers", default=",".join(PEERS), help="peers, separated by commas")
    parser.add_argument("--works", default=",".join(CONNECTIONS), help="workloads, separated by commas")
    parser.add_argument(
        "--out", type=Path, help="file for the results (default: a new file in benchmarks/results)"
    )
    parser.add_argument(
        "--from",
        dest="file",
        type=Path,
        help="print the tables of a previous run without measuring",
    )
    parser.add_argument("--page", type=Path, help="with --from: page whose first tables are replaced")
    parser.add_argument("--chart", type=Path, help="with --from: SVG image that is written")
    options = parser.parse_args()
    if options.file and options.chart:
        options.chart.write_text(chart(read(options.file)))
    if options.file:
        text = tables(read(options.file))
        print(text)
        if options.page:
            shown = f"<!-- from benchmarks/results/{options.file.name} -->\n\n{text}\n\n<!-- end -->"
            page = options.page.read_text()
            options.page.write_text(
                re.sub(r"<!-- from \S+ -->.*?<!-- end -->", lambda _: shown, page, count=1, flags=re.DOTALL)
            )
        return
    names, works = options.peers.split(","), options.works.split(",")
    unknown = [*(set(names) - set(PEERS)), *(set(works) - set(CONNECTIONS))]
    if unknown:
        parser.error(f"unknown peers or workloads: {', '.join(unknown)}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # Stop the servers, like Ctrl-C does.
    cores = sorted(os.sched_getaffinity(0))
    run = Run(options.seconds, options.slices, cores)
    run.rows.append(Row("", "", "", 0, "how", how(options, cores, run.wrk)))
    run.rows.append(Row("", "", OURS, 0, "version", CORTEX.version))
    ready = []
    for name in names:
        run.rows.append(Row("", name, name, 0, "version", PEERS[name].version))
        try:
            prepare(PEERS[name])
            ready.append(PEERS[name])
        except Failed as failure:
            run.rows.append(Row("", name, name, 0, "failed", str(failure)))
    make_network()
    if shutil.which("taskset"):
        os.sched_setaffinity(0, {run.load})
    file = options.out or HERE / "results" / f"peers-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.csv"
    for number in range(1, options.rounds + 1):
        for work in works:
            for peer in (peer for peer in ready if work in peer.questions):
                busy = f"{os.getloadavg()[0]:.1f}"
                run.rows.append(Row(work, peer.name, "", number, "load_average", busy))
                for attempt in range(1, TRIES + 1):
                    before = len(run.rows)
                    try:
                        run.pair(work, peer, number)
                        break
                    except Failed as failure:
                        if attempt == TRIES:
                            run.rows.append(Row(work, peer.name, peer.name, number, "failed", str(failure)))
                        else:
                            del run.rows[before:]
                write(file, run.rows)
                done = f"round {number}: {work}: {peer.name} (load average {busy})"
                print(done, file=sys.stderr, flush=True)
    print(tables(run.rows))
    print(f"\nAll slices are in {file}")


def read(file: Path) -> list[Row]:
    with file.open(newline="") as rows:
        return [Row(**(row | {"number": int(row["number"])})) for row in csv.DictReader(rows)]


def write(file: Path, rows: list[Row]) -> None:
    file.parent.mkdir(exist_ok=True)
    with file.open("w", newline="") as output:
        writer = csv.writer(output, lineterminator="\n")
        writer.writerow(Row.__dataclass_fields__)
        writer.writerows(
            (row.work, row.peer, row.contestant, row.number, row.measured, row.value) for row in rows
        )


if __name__ == "__main__":
    main()
