"""Thousands of jobs that are due at one instant, behind a breaker that closes, on workers that reconnect together."""

from __future__ import annotations

import contextlib
import re

import pytest

from glidemq_core import Breaker, Budget, NewJob, Queue, Throttle, Worker
from glidemq_core.ledger import Ledger
from tests.harness.aftermath import Aftermath, Rate
from tests.harness.money import INPUT, Admissions, behaviour, spender
from tests.harness.provider import Provider
from tests.harness.servers import ValkeyServer
from tests.harness.workers import until_count

pytestmark = pytest.mark.faults

CALL = INPUT + 5
JOBS = 5_000
WORKERS = 64
PER_MINUTE = 18_000  # well below what the workers could do
BURST = 120
LONGEST = 20_000  # microseconds that a function may hold the server


def share_of_slow_calls(server: ValkeyServer) -> float:
    """Of the calls of functions, those that took too long. The server's clock runs on while others have its core."""
    entries = server.cmd("SLOWLOG", "GET", "-1")
    slow = sum(entry[3][0].lower().startswith(b"fcall") for entry in entries)
    stats = server.cmd("INFO", "commandstats").decode()
    return slow / int(re.findall(r"cmdstat_fcall:calls=(\d+)", stats)[0])


@pytest.mark.timeout(300)
async def test_herd_behind_a_breaker_is_let_through_spaced_when_it_closes(
    queue: Queue, ledger: Ledger, server: ValkeyServer, provider: Provider, aftermath: Aftermath
):
    limit = Throttle(rpm=PER_MINUTE, burst=BURST / PER_MINUTE, breaker=Breaker(calls=5, open_for=3))
    aftermath.rates = [Rate(per_minute=PER_MINUTE, burst=BURST)]
    admissions = Admissions(server)
    server.cmd("CONFIG", "SET", "slowlog-log-slower-than", str(LONGEST))
    provider.usually(behaviour(5))
    handler = spender(provider.port, let_in=admissions.note)
    await ledger.open_budget("b", Budget(max_total_tokens=JOBS * CALL))

    async with contextlib.AsyncExitStack() as stack:
        one = NewJob(name="j", limits={"p": limit}, budgets=["b"], delay=4, attempts=1)
        await queue.add_many([one] * JOBS)
        for _ in range(WORKERS):
            worker = Worker(queue.name, handler, connection=server.url, concurrency=8)
            await stack.enter_async_context(worker)
        for n in range(5):
            failed = await ledger.reserve(f"x/1/{n}", limits={"p": limit})
            await failed.settle(outcome="error")
        assert (await ledger.limiter_state("p")).breaker == "open"
        await until_count(queue, "active", 1, timeout=30)
        server.cmd("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        await until_count(queue, "completed", JOBS, timeout=200)
    slow = share_of_slow_calls(server)

    assert len(admissions.at) >= JOBS
    # It was closed by its first call, and nobody waits for longer than the rate asks, and a few looks.
    assert max(admissions.at) - min(admissions.at) < 100_000
    assert admissions.problems(per_minute=PER_MINUTE, burst=BURST, windows=(0.1, 0.5, 1, 2)) == []
    assert slow < 0.01
