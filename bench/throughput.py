"""How many jobs a second, what each costs, and how many bytes it takes.

    python bench/throughput.py [drain|work|enqueue|bytes ...] [--aof] [--runs 3] [--jobs 20000] [--peers glidemq,bullmq]

drain    a full queue of no-op jobs, 50 at a time, one worker process, the last 1,000 kept
work     the same with 5 ms of waiting in each handler (ideal: 10,000/s)
enqueue  adds one at a time, 50 in flight, and in bulk
bytes    server memory per waiting and per finished job
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

from harness import Program, install_peers, medians, run, server, table

CONCURRENCY = 50


def drain(peer: str, *, aof: bool, jobs: int, work: float = 0.0) -> dict[str, float]:
    jobs = jobs // 10 if peer == "dramatiq" else jobs
    with server(aof=aof) as valkey:
        run(peer, "fill", valkey.url, jobs)
        before = valkey.settled()
        with Program(peer, "drain", valkey.url, CONCURRENCY, jobs, 1000, work) as worker:
            result = worker.line()
            after = valkey.settled()
    return {
        "jobs/s": jobs / result["seconds"],
        "worker CPU us/job": result["cpu_us"],
        "server CPU us/job": (after.cpu - before.cpu) / jobs * 1e6,
        "server calls/job": (after.calls - before.calls) / jobs,
        "server commands/job": (after.commands - before.commands) / jobs,
        "socket reads/job": (after.reads - before.reads) / jobs,
    }


def work(peer: str, *, aof: bool, jobs: int) -> dict[str, float]:
    return drain(peer, aof=aof, jobs=jobs, work=0.005)


def enqueue(peer: str, *, aof: bool, jobs: int) -> dict[str, float]:
    with server(aof=aof) as valkey:
        result = run(peer, "enqueue", valkey.url, 1.5)
    return {
        "one at a time, adds/s": result["serial"],
        "50 in flight, adds/s": result["in_flight"],
        "bulk, adds/s": result["bulk"],
    }


def bytes_per_job(peer: str, *, aof: bool, jobs: int) -> dict[str, float]:
    jobs = min(jobs, 5000)  # under every default of retention: all stay
    with server(aof=aof) as valkey:
        # One job first, so that what is there once per queue or server is not counted.
        run(peer, "fill", valkey.url, 1)
        empty = valkey.settled().memory
        run(peer, "fill", valkey.url, jobs - 1)
        waiting = valkey.settled().memory
        with Program(peer, "drain", valkey.url, CONCURRENCY, jobs, jobs, 0) as worker:
            worker.line()
            valkey.settled()
        finished = valkey.settled().memory
    return {
        "bytes/waiting job": (waiting - empty) / (jobs - 1),
        "bytes/finished job": (finished - empty) / (jobs - 1),
    }


MEASUREMENTS: dict[str, Callable[..., dict[str, float]]] = {
    "drain": drain,
    "work": work,
    "enqueue": enqueue,
    "bytes": bytes_per_job,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", nargs="*", default=list(MEASUREMENTS))
    parser.add_argument(
        "--aof", action="store_true", help="with the append-only file on (everysec)"
    )
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=20000)
    parser.add_argument("--peers", help="comma-separated; default: all that can run here")
    options = parser.parse_args()
    peers = options.peers.split(",") if options.peers else install_peers()
    for what in options.what:
        records: dict[str, list[dict[str, float]]] = {
            peer: [] for peer in peers if (what, peer) != ("bytes", "dramatiq")
        }
        # Round after round, so that a slow minute of the machine meets every peer.
        for _ in range(options.runs):
            for peer, runs in records.items():
                runs.append(MEASUREMENTS[what](peer, aof=options.aof, jobs=options.jobs))
        kind = "append-only file on" if options.aof else "append-only file off"
        table(
            f"{what} ({kind}, median of {options.runs})",
            {peer: medians(runs) for peer, runs in records.items()},
        )


if __name__ == "__main__":
    main()
