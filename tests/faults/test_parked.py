"""Jobs that wait for a budget hold nothing and cost nothing, however many they are."""

from __future__ import annotations

import asyncio
import re
import time
from typing import Any

import pytest

from glidemq_core import Budget, NewJob, Queue, Worker
from glidemq_core.ledger import Ledger
from tests.harness.servers import ValkeyServer
from tests.harness.workers import until_count

pytestmark = pytest.mark.faults

JOBS = 10_000
LOOK = 6.0  # three idle cycles of a worker


def function_calls(server: ValkeyServer) -> int:
    """The calls of the library so far."""
    stats = server.cmd("INFO", "commandstats").decode()
    return sum(int(count) for count in re.findall(r"cmdstat_fcall(?:_ro)?:calls=(\d+)", stats))


@pytest.mark.timeout(200)
async def test_10_000_parked_jobs_cost_no_calls_while_they_wait_and_all_run_at_last(
    queue: Queue, url: str, server: ValkeyServer
):
    async def handler(job: Any) -> None:
        async with job.llm_call("m", tokens={"input": 1}) as call:
            call.tokens = {"input": 1}

    async with (
        Ledger(connection=url) as ledger,
        Worker(queue.name, handler, connection=url, concurrency=200),
    ):
        await ledger.open_budget("b", Budget(max_total_tokens=0, on_exceeded="pause"))
        await queue.add_many([NewJob(name="j", budgets=["b"]) for _ in range(JOBS)])
        await until_count(queue, "delayed", JOBS, timeout=90)

        before, at = function_calls(server), time.monotonic()
        await asyncio.sleep(LOOK)
        calls, spent = function_calls(server) - before, time.monotonic() - at

        # Two turns and a round of the ledger's upkeep in two seconds: as for one job, or none.
        assert calls / spent < 5
        await ledger.update_budget("b", Budget(max_total_tokens=JOBS, on_exceeded="pause"))
        await until_count(queue, "completed", JOBS, timeout=90)
        state = await ledger.budget("b")

    assert state is not None
    assert (state.total_tokens, state.reserved) == (JOBS, {})
