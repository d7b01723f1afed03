"""Steps whose worker dies in the middle."""

from __future__ import annotations

import pytest

from glidemq_core import Queue, kept_text
from tests.harness.workers import Workers

pytestmark = pytest.mark.faults


async def test_what_a_killed_worker_had_streamed_in_a_step_is_salvaged(
    queue: Queue, workers: Workers
):
    job = await queue.add("salvage")
    worker = workers.start(lock_duration=1)
    text = ""
    async with job.stream() as chunks:
        async for chunk in chunks:
            text += chunk.content
            if text == "two words":
                break

    worker.kill()
    second = workers.start()

    assert await job.result(timeout=30) == "two words"
    assert kept_text([chunk async for chunk in job.stream()]) == "two words"
    assert (len(worker.noted("asked")), len(second.noted("asked"))) == (1, 0)
