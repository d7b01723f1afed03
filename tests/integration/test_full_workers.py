"""Workers with no free slot still do their share of the upkeep."""

from __future__ import annotations

import asyncio

import pytest

from glidemq_core import JobFailed


async def test_job_past_its_ttl_expires_although_all_slots_are_taken(queue, work):
    release = asyncio.Event()

    async def handler(job):
        await release.wait()

    async with work(handler, concurrency=1):
        await queue.add("blocks")
        late = await queue.add("late", ttl=0.3)

        with pytest.raises(JobFailed, match="expired"):
            await late.result(timeout=10)
        release.set()
