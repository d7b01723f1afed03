"""What the ledger costs the server: time of a reserve and of its settle, with many reservations open.

    python bench/budget.py [--open 10000] [--calls 5000]

Server time is the processor time of the server's main thread per call, reading and answering it included: the clock of
the server also runs while another process has its core.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from functools import partial

from harness import server

from glidemq_core._client import Client
from glidemq_core._ledger import Admitted, LedgerClient
from glidemq_core._target import parse
from glidemq_core.budget import Budget
from glidemq_core.throttle import Breaker, Throttle

TOKENS = {"input": 900, "output": 400, "reasoning": 100}
COSTS = {"total": 4_200_000}
WAYS = {
    "one budget": (["tenant"], False),
    "three budgets": (["flow", "tenant", "user"], False),
    "three budgets, one limiter": (["flow", "tenant", "user"], True),
}
LIMIT = Throttle(rpm=10**8, tpm=10**10, concurrency=10**6, breaker=Breaker())
IN_FLIGHT = 100


class Bench:
    """One ledger with its open reservations, and the server's processor time."""

    def __init__(self, ledger: LedgerClient, info) -> None:
        self.ledger = ledger
        self._info = info

    def spent(self) -> float:
        """Processor time of the server's main thread so far, in microseconds."""
        info = self._info()
        used = float(info["used_cpu_user_main_thread"]) + float(info["used_cpu_sys_main_thread"])
        return used * 1e6

    async def reserve(self, call: str, budgets: list[str], limited: bool) -> None:
        limiters = [LIMIT.wire("provider")] if limited else []
        verdict = await self.ledger.reserve(
            call, tokens=TOKENS, costs=COSTS, ttl=3600, budgets=budgets, limiters=limiters
        )
        assert isinstance(verdict, Admitted), verdict

    async def settle(self, call: str) -> None:
        now = int(time.time() * 1000)
        done = await self.ledger.settle(
            call, started_ms=now, tokens=TOKENS, costs=COSTS, outcome="ok"
        )
        assert done.code in (
            "settled",
            "already",
        )  # "already": its reply was lost, and asked for again

    async def all(self, calls: list) -> float:
        """Run calls, some in flight at a time; answers the server's time for each in microseconds."""
        before = self.spent()
        for at in range(0, len(calls), IN_FLIGHT):
            await asyncio.gather(*(make() for make in calls[at : at + IN_FLIGHT]))
        return (self.spent() - before) / len(calls)


async def measure(url: str, info, open_calls: int, calls: int) -> None:
    client = Client(parse(url))
    bench = Bench(LedgerClient(client), info)
    for id in ("flow", "tenant", "user"):
        await bench.ledger.open(id, Budget(max_total_tokens=10**11, max_total_cost=1_000_000))
    many = ["flow", "tenant", "user"]
    await bench.all([partial(bench.reserve, f"open{n}/1/1", many, True) for n in range(open_calls)])
    print(f"{open_calls:,} reservations open; microseconds of server time per call")
    print(f"  {'':28}{'reserve':>10}{'settle':>10}{'both':>10}")
    for name, (budgets, limited) in WAYS.items():
        ids = [f"{name}{n}/1/1" for n in range(calls)]
        first = await bench.all([partial(bench.reserve, id, budgets, limited) for id in ids])
        second = await bench.all([partial(bench.settle, id) for id in ids])
        print(f"  {name:28}{first:10.1f}{second:10.1f}{first + second:10.1f}", flush=True)
    await client.close()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--open", type=int, default=10_000)
    parser.add_argument("--calls", type=int, default=5_000)
    options = parser.parse_args()
    with server() as valkey:
        asyncio.run(measure(valkey.url, valkey.info, options.open, options.calls))


if __name__ == "__main__":
    main()
