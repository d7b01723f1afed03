"""From just before `add` to the first line of the handler, on an idle worker.

python bench/latency.py [--aof] [--runs 3] [--jobs 500] [--gap 0.005] [--peers glidemq,bullmq]
"""

from __future__ import annotations

import argparse

from harness import Program, install_peers, medians, percentile, run, server, table


def latency(peer: str, *, aof: bool, jobs: int, gap: float) -> dict[str, float]:
    with server(aof=aof) as valkey, Program(peer, "listen", valkey.url, 10, jobs) as worker:
        worker.line()
        run(peer, "pace", valkey.url, jobs, gap)
        values = worker.line()["latencies"]
    return {f"p{share:g} ms": percentile(values, share / 100) for share in (50, 95, 99)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--aof", action="store_true", help="with the append-only file on (everysec)"
    )
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=500)
    parser.add_argument("--gap", type=float, default=0.005, help="seconds between two adds")
    parser.add_argument("--peers", help="comma-separated; default: all that can run here")
    options = parser.parse_args()
    peers = options.peers.split(",") if options.peers else install_peers()
    records: dict[str, list[dict[str, float]]] = {peer: [] for peer in peers}
    for _ in range(options.runs):
        for peer in peers:
            records[peer].append(latency(peer, aof=options.aof, jobs=options.jobs, gap=options.gap))
    kind = "append-only file on" if options.aof else "append-only file off"
    table(
        f"add to handler start ({kind}, median of {options.runs})",
        {p: medians(records[p]) for p in peers},
    )


if __name__ == "__main__":
    main()
