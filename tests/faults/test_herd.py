"""Thousands of jobs that are due at one instant, behind a breaker that closes, on workers that reconnect together."""

from __future__ import annotations

import asyncio
import contextlib
import re
from typing import Any

import pytest

from glidemq_core import Breaker, NewJob, Queue, Throttle, Worker
from glidemq_core.ledger import Ledger
from tests.harness.money import Admissions
from tests.harness.servers import ValkeyServer

pytestmark = pytest.mark.faults

JOBS = 5_000
WORKERS = 64
PER_MINUTE = 60_000
BURST = 120
LONGEST = 20_000  # microseconds that a function may hold the server


def share_of_slow_calls(server: ValkeyServer) -> float:
    """Of the calls of functions, those that took too long. The server's clock runs on while others have its core."""
    entries = server.cmd("SLOWLOG", "GET", "-1")
    slow = sum(entry[3][0].lower().startswith(b"fcall") for entry in entries)
    stats = server.cmd("INFO", "commandstats").decode()
    return slow / int(re.findall(r"cmdstat_fcall:calls=(\d+)", stats)[0])


@pytest.mark.timeout(150)
async def test_herd_behind_a_breaker_is_let_through_spaced_when_it_closes(
    queue: Queue, url: str, server: ValkeyServer
):
    limit = Throttle(rpm=PER_MINUTE, burst=BURST / PER_MINUTE, breaker=Breaker(calls=5, open_for=3))
    admissions = Admissions(server)
    server.cmd("CONFIG", "SET", "slowlog-log-slower-than", str(LONGEST))

    async def handler(job: Any) -> None:
        async with job.llm_call("m", tokens={"input": 1}) as call:
            admissions.note(call.id)
            call.tokens = {"input": 1}

    async with Ledger(connection=url) as ledger, contextlib.AsyncExitStack() as stack:
        await queue.add_many(
            [NewJob(name="j", limits={"p": limit}, delay=4, attempts=1) for _ in range(JOBS)]
        )
        for _ in range(WORKERS):
            worker = Worker(queue.name, handler, connection=url, concurrency=8)
            await stack.enter_async_context(worker)
        for n in range(5):
            one = await ledger.reserve(f"x/1/{n}", limits={"p": limit})
            await one.settle(outcome="error")
        assert (await ledger.limiter_state("p")).breaker == "open"
        async with asyncio.timeout(30):
            while not (await queue.counts())["active"]:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        server.cmd("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        async with asyncio.timeout(120):
            while (await queue.counts())["completed"] < JOBS:  # noqa: ASYNC110
                await asyncio.sleep(0.2)

    assert len(admissions.at) >= JOBS
    # It was closed by its first call, and nobody waits for longer than the rate asks, and a few looks.
    assert max(admissions.at) - min(admissions.at) < 40_000
    assert admissions.problems(per_minute=PER_MINUTE, burst=BURST, windows=(0.1, 0.5, 1, 2)) == []
    assert share_of_slow_calls(server) < 0.01
