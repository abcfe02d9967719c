"""`make bench-peers`: the runtime beside other model servers, all in one run; only the ratios mean anything.

Servers on one core, load on another, one process that serves each where it can be. In every round each contestant is started
for each work, asked, and stopped again before the next: none runs beside another. Rows go to benchmarks/results/, and
`peers_.py --from FILE` prints the tables of a run again.
"""

import argparse
import csv
import json
import os
import platform
import shutil
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import processes
from peer_tables import Row, tables
from rivals import OURS, RIVALS, Rival, make_network, prepare, serving
from run import HERE, Failed, measure, output_of, pinned

CONNECTIONS = {"trivial": 16, "iris": 16, "batching": 32}
OPEN_LOOP = "iris"
IDLE_S = 1.0


class Run:
    """What is measured with, and the rows so far. seconds: of load at a time; cores: the last one is the load's."""

    def __init__(self, seconds: float, cores: list[int]) -> None:
        self.seconds = seconds
        self.server, self.load = cores[:1], cores[-1]
        self.wrk = shutil.which("wrk")
        self.rows: list[Row] = []
        self.failed: set[str] = set()

    def note(
        self, work: str, name: str, number: int, measured: str, value: float | str, at: str = ""
    ) -> None:
        said = value if isinstance(value, str) else f"{value:.4g}" if value < 1000 else f"{value:.0f}"
        self.rows.append(Row(work, name, number, measured, at, said))

    def turn(self, work: str, rival: Rival, number: int, capacities: dict[str, float]) -> None:
        """One contestant with one work, from its start to its end. Adds its requests a second to capacities."""
        question, name = rival.questions[work], rival.name
        with serving(rival, work, self.server) as server:
            time.sleep(IDLE_S)
            members = processes.family(server.process.pid)
            resident, share = processes.memory(members)
            self.note(work, name, number, "start_s", server.start_s)
            self.note(work, name, number, "rss_mib", resident)
            self.note(work, name, number, "pss_mib", share)
            self.note(work, name, number, "processes", len(members))

            def load(seconds: float) -> float:
                connections = CONNECTIONS[work]
                return measure(
                    server.port,
                    question.body,
                    seconds,
                    self.load,
                    self.wrk,
                    path=question.path,
                    connections=connections,
                )

            load(1)  # Warm.
            before = _cpu(server.process.pid)
            rate = capacities[name] = load(self.seconds)
            spent = _cpu(server.process.pid) - before
            self.note(work, name, number, "requests_per_second", rate)
            self.note(work, name, number, "cpu_us", spent / (rate * max(1, round(self.seconds))) * 1e6)
            if work == OPEN_LOOP:
                others = capacities if name == OURS else [name]
                for other in others:
                    self._open_loop(rival, server.port, number, other, capacities[other] / 2)

    def _open_loop(self, rival: Rival, port: int, number: int, other: str, rate: float) -> None:
        """Poisson arrivals at half of what another (or the same) contestant can do."""
        question = rival.questions[OPEN_LOOP]
        command = [sys.executable, str(HERE / "poisson.py"), str(port), question.path, str(rate)]
        command += [str(2 * self.seconds), str(number)]
        found = json.loads(output_of(pinned([self.load], command), question.body))
        for measured, value in (
            ("rate", rate),
            ("p50_ms", found["p50"] * 1e3),
            ("p99_ms", found["p99"] * 1e3),
        ):
            self.note(OPEN_LOOP, rival.name, number, measured, value, other)
        self.note(OPEN_LOOP, rival.name, number, "client_late_ms", found["late"] * 1e3, other)


def _cpu(root: int) -> float:
    return sum(member.cpu for member in processes.family(root))


def how(options: argparse.Namespace, cores: list[int], wrk: str | None) -> str:
    """The machine and the method, in one line."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    tool = "wrk" if wrk else "load.py, which flattens the ratios"
    return (
        f"{len(cores)} cores ({model}), Python {platform.python_version()}; {options.rounds} rounds of "
        f"{options.seconds:g} s of load by {tool} and {2 * options.seconds:g} s of Poisson arrivals"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of load at a time")
    parser.add_argument("--peers", default=",".join(rival.name for rival in RIVALS if rival.name != OURS))
    parser.add_argument("--works", default=",".join(CONNECTIONS))
    parser.add_argument(
        "--from",
        dest="file",
        type=Path,
        help="print the tables of an earlier run's file, and measure nothing",
    )
    options = parser.parse_args()
    if options.file:
        print(tables(read(options.file)))
        return
    names, works = options.peers.split(","), options.works.split(",")
    unknown = (set(names) - {rival.name for rival in RIVALS}) | (set(works) - set(CONNECTIONS))
    if unknown:
        parser.error(f"there is no {', '.join(sorted(unknown))}")
    cores = sorted(os.sched_getaffinity(0))
    run = Run(options.seconds, cores)
    contestants = []
    for rival in RIVALS:
        if rival.name in names or rival.name == OURS:
            run.note("", rival.name, 0, "version", rival.version)
            try:
                prepare(rival)
                contestants.append(rival)
            except Failed as failure:
                run.note("", rival.name, 0, "failed", str(failure))
    make_network()
    if shutil.which("taskset"):
        os.sched_setaffinity(0, {run.load})
    run.note("", "", 0, "how", how(options, cores, run.wrk))
    file = HERE / "results" / f"peers-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.csv"
    for number in range(1, options.rounds + 1):
        run.note("", "", number, "load_average", os.getloadavg()[0])
        for work in works:
            capacities: dict[str, float] = {}
            for rival in contestants:  # Cortex last: it is asked at the others' rates too.
                try:
                    run.turn(work, rival, number, capacities)
                except Failed as failure:
                    run.note(work, rival.name, number, "failed", str(failure))
                last = capacities.get(rival.name)
                said = f"{last:,.0f} requests/s" if last else run.rows[-1].value
                print(f"round {number}: {work}: {rival.name}: {said}", file=sys.stderr, flush=True)
        write(file, run.rows)
    print(tables(run.rows))
    print(f"\nEvery round is in {file}")


def read(file: Path) -> list[Row]:
    with file.open(newline="") as rows:
        return [Row(**(row | {"round": int(row["round"])})) for row in csv.DictReader(rows)]


def write(file: Path, rows: list[Row]) -> None:
    file.parent.mkdir(exist_ok=True)
    with file.open("w", newline="") as output:
        writer = csv.writer(output, lineterminator="\n")
        writer.writerow(Row.__dataclass_fields__)
        writer.writerows(
            (row.work, row.contestant, row.round, row.measured, row.at, row.value) for row in rows
        )


if __name__ == "__main__":
    main()
