"""Chunks: how many one worker can append, and how late a reader of many live streams sees them.

python bench/streams.py [append|read ...] [--aof] [--runs 3] [--streams 500] [--rate 10000] [--seconds 5]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

from harness import Program, medians, percentile, run, server, table


def append(*, aof: bool, streams: int, rate: float, seconds: float) -> dict[str, float]:
    jobs, chunks = 50, 2000
    with server(aof=aof) as valkey:
        before = valkey.counters()
        result = run("glidemq", "append", valkey.url, jobs, chunks)
        after = valkey.settled()
    return {
        "chunks/s": result["rate"],
        "worker CPU us/chunk": result["cpu_us"],
        "server CPU us/chunk": (after.cpu - before.cpu) / (jobs * chunks) * 1e6,
        "server calls/chunk": (after.calls - before.calls) / (jobs * chunks),
    }


def read(*, aof: bool, streams: int, rate: float, seconds: float) -> dict[str, float]:
    with (
        server(aof=aof) as valkey,
        Program("glidemq", "write", valkey.url, streams, rate, seconds) as writer,
    ):
        writer.line()
        before = valkey.counters()
        result = run("glidemq", "read", valkey.url, streams)
        after = valkey.counters()
    values = result["latencies"]
    return {
        "chunks": len(values),
        **{f"p{share:g} ms": percentile(values, share / 100) for share in (50, 95, 99)},
        "reader CPU us/chunk": result["cpu_us"],
        "server CPU us/chunk": (after.cpu - before.cpu) / len(values) * 1e6,
        "server calls/chunk": (after.calls - before.calls) / len(values),
    }


MEASUREMENTS: dict[str, Callable[..., dict[str, float]]] = {"append": append, "read": read}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", nargs="*", default=list(MEASUREMENTS))
    parser.add_argument(
        "--aof", action="store_true", help="with the append-only file on (everysec)"
    )
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--streams", type=int, default=500)
    parser.add_argument("--rate", type=float, default=10_000, help="chunks a second in all")
    parser.add_argument("--seconds", type=float, default=5)
    options = parser.parse_args()
    given = {
        "aof": options.aof,
        "streams": options.streams,
        "rate": options.rate,
        "seconds": options.seconds,
    }
    kind = "append-only file on" if options.aof else "append-only file off"
    for what in options.what:
        records = [MEASUREMENTS[what](**given) for _ in range(options.runs)]
        table(f"{what} ({kind}, median of {options.runs})", {"glidemq": medians(records)})


if __name__ == "__main__":
    main()
