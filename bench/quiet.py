"""What a worker asks of the server while nothing happens, and while 200 long jobs run.

python bench/quiet.py [--aof] [--runs 3] [--jobs 200] [--seconds 15]
"""

from __future__ import annotations

import argparse
import time

from harness import Program, medians, server, table


def quiet(*, aof: bool, jobs: int, seconds: float) -> dict[str, float]:
    with server(aof=aof) as valkey, Program("glidemq", "hold", valkey.url, jobs) as worker:
        worker.line()
        time.sleep(2)  # the claims and their first beat are over
        before, start = valkey.counters(), time.monotonic()
        time.sleep(seconds)
        after, elapsed = valkey.counters(), time.monotonic() - start
    return {
        "server calls/s": (after.calls - before.calls) / elapsed,
        "server commands/s": (after.commands - before.commands) / elapsed,
        "server CPU ms/s": (after.cpu - before.cpu) / elapsed * 1e3,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--aof", action="store_true", help="with the append-only file on (everysec)"
    )
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=15)
    options = parser.parse_args()
    kind = "append-only file on" if options.aof else "append-only file off"
    for jobs in (0, options.jobs):
        records = [
            quiet(aof=options.aof, jobs=jobs, seconds=options.seconds) for _ in range(options.runs)
        ]
        table(
            f"{jobs} running jobs ({kind}, median of {options.runs})", {"glidemq": medians(records)}
        )


if __name__ == "__main__":
    main()
