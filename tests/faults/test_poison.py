"""Jobs that kill their worker: only they fail in the end."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from glidemq_core import JobFailed, NewJob, Queue
from glidemq_core._consumer import Consumer
from glidemq_core._turns import TurnReply
from tests.harness.auditor import audit
from tests.harness.servers import ValkeyServer
from tests.harness.workers import Workers

pytestmark = pytest.mark.faults


async def test_a_job_that_kills_its_process_each_time_fails_alone(
    server: ValkeyServer, queue: Queue, workers: Workers
):
    def neighbours(count: int) -> list[NewJob]:
        return [NewJob(name="wait", data={"seconds": 0.1}) for _ in range(count)]

    before = await queue.add_many(neighbours(25))
    culprit = await queue.add("crash")
    after = await queue.add_many(neighbours(25))
    end = asyncio.create_task(culprit.result(timeout=40))
    settings: dict[str, Any] = {"concurrency": 10, "lock_duration": 1}

    deaths = 0
    while not end.done():
        victim = workers.start(**settings)
        waits = {asyncio.create_task(asyncio.to_thread(victim.ended.wait, 40)), end}
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        deaths += victim.ended.is_set()

    with pytest.raises(JobFailed) as caught:
        await end
    assert caught.value.reason == "stalled"
    assert deaths >= 4
    for neighbour in [*before, *after]:
        await neighbour.result(timeout=30)
    ids = [handle.id for handle in [*before, culprit, *after]]
    await audit(server, queue, ids, workers.all, failed=[culprit.id])


class SlowTurns:
    """Turns that wait to be answered; notes what each was asked for."""

    def __init__(self) -> None:
        self.settings: Any = None
        self.asked: list[dict[str, int]] = []
        self.news = asyncio.Event()

    async def take(self, outcomes: list[Any], started: list[Any], **asked: int) -> TurnReply:
        self.asked.append(asked)
        self.news.set()
        await asyncio.Event().wait()
        raise AssertionError


async def test_two_turns_at_once_do_not_both_ask_for_a_suspect():
    turns = SlowTurns()
    consumer = Consumer(turns, Any, Any, Any, 1)  # type: ignore[arg-type]
    async with asyncio.TaskGroup() as group:
        first = group.create_task(consumer._turn(1))
        second = group.create_task(consumer._turn(1))
        while len(turns.asked) < 2:
            turns.news.clear()
            await turns.news.wait()
        first.cancel()
        second.cancel()

    assert sorted(asked["suspects"] > 0 for asked in turns.asked) == [False, True]
