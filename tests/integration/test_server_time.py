"""What is too late for a budget is judged by the server's clock."""

from __future__ import annotations

import time

import pytest

from glidemq_core import Budget, Ledger


@pytest.mark.parametrize("days", [-400, 400])
async def test_clock_of_a_worker_has_no_say_in_what_is_too_late_for_a_budget(
    queue, work, any_server, monkeypatch, days
):
    """What is a day old and unknown is refused: by the time of the server."""
    right = time.time

    async def spend(job):
        call = job.next_call_id()
        await job.reserve(call, tokens={"input": 5})
        any_server.cmd("DEL", f"glidemq:{{ledger:{queue.name}}}:call:{call}")  # as after a failover
        await job.report_usage(model="m", tokens={"input": 5}, call=call)

    async with Ledger(queue.name, connection=any_server.url) as ledger:
        await ledger.open_budget("b", Budget(max_total_tokens=100))
        monkeypatch.setattr(time, "time", lambda: right() + days * 86_400)
        async with work(spend):
            job = await queue.add("n", budgets=["b"], ledger=queue.name)
            await job.result(timeout=20)
        await ledger.settle("by/hand/1", tokens={"input": 7}, budgets=["b"])

        state = await ledger.budget("b")
    assert state.caps["total_tokens"].used == 12
