"""Readers that are late, dropped, many or slow: none loses or repeats a chunk unseen, and none holds up the writer."""

from __future__ import annotations

import asyncio
import random
import time

import pytest

from glidemq_core import Queue, StreamGap, Worker, kept_text
from tests.harness.aftermath import Aftermath
from tests.harness.processes import eventually
from tests.harness.servers import ValkeyServer

pytestmark = [pytest.mark.faults, pytest.mark.usefixtures("aftermath")]


async def read(stream):
    return [chunk async for chunk in stream]


async def writes(job):
    for i in range(job.data):
        await job.stream_chunk("content", f"{i} ")
        if i % 50 == 0:
            await asyncio.sleep(0.005)
    return "".join(f"{i} " for i in range(job.data))


@pytest.mark.timeout(120)
async def test_two_hundred_readers_of_one_job_that_come_and_go_all_see_its_text(
    server: ValkeyServer, queue: Queue, aftermath: Aftermath
):
    dice = random.Random(7)

    async def comes_and_goes(job, *, after: float):
        await asyncio.sleep(after)  # late: that is the point
        seen, last = [], None
        while not seen or seen[-1].type != "end":
            leaves_after = dice.randint(20, 400)
            async with job.stream(after=last) as stream:
                async for chunk in stream:
                    seen.append(chunk)
                    last = chunk.id or last
                    leaves_after -= 1
                    if not leaves_after:
                        break
        return seen

    async with Worker(queue.name, writes, connection=server.url):
        job = await queue.add("n", 1000)
        readers = [
            asyncio.create_task(comes_and_goes(job, after=dice.uniform(0, 0.5))) for _ in range(200)
        ]
        result = await job.result(timeout=90)
        seen = await asyncio.gather(*readers)
    for chunks in seen:
        assert kept_text(chunks) == result
        aftermath.saw(job.id, chunks)


async def test_very_slow_reader_does_not_hold_up_the_writer_and_misses_nothing(
    server: ValkeyServer, queue: Queue, aftermath: Aftermath
):
    async with Worker(queue.name, writes, connection=server.url):
        quick = await queue.add("n", 6000)
        await quick.result(timeout=30)
        alone = await quick.snapshot()
        job = await queue.add("n", 6000)
        seen = []
        async with job.stream() as stream:
            first = await anext(stream)
            result = await job.result(timeout=30)  # the reader stands still meanwhile
            ended = await job.snapshot()
            seen = [first, *await read(stream)]
    assert kept_text(seen) == result
    aftermath.saw(job.id, seen)
    took, usual = ((one.finished_at - one.started_at).total_seconds() for one in (ended, alone))
    assert took < usual * 3 + 5


async def test_buffer_of_a_reader_that_stands_still_stays_bounded(
    server: ValkeyServer, queue: Queue
):
    async with Worker(queue.name, writes, connection=server.url):
        job = await queue.add("n", 9000)
        stream = job.stream()
        await anext(stream)
        await job.result(timeout=30)
        assert stream._reader is not None
        held = len(stream._reader.chunks)
        rest = await read(stream)
    assert held < 2048 + 512 + 1
    assert len(rest) == 9000  # 8,999 and the end


async def test_resume_after_a_trim_is_an_explicit_gap(server: ValkeyServer, queue: Queue):
    async with Worker(queue.name, writes, connection=server.url):
        job = await queue.add("n", 10)
        await job.result(timeout=30)
    whole = await read(job.stream())
    key = f"glidemq:{{{queue.name}}}:job:{job.id}:chunks"
    server.cmd("XTRIM", key, "MINID", whole[6].id)

    with pytest.raises(StreamGap) as caught:
        await read(job.stream(after=whole[2].id))
    assert caught.value.first == whole[6].id
    fresh = await read(job.stream())
    assert fresh[0].type == "gap"
    assert [chunk.content for chunk in fresh[1:-1]] == [f"{i} " for i in range(6, 10)]
    # Just before the trim: nothing is missing there.
    assert [chunk.content for chunk in await read(job.stream(after=whole[6].id))][:-1] == [
        f"{i} " for i in range(7, 10)
    ]


async def test_reader_stays_quick_beside_a_slow_one(server: ValkeyServer, queue: Queue):
    async with Worker(queue.name, writes, connection=server.url, concurrency=2):
        slow_job = await queue.add("n", 8000)
        slow = slow_job.stream()
        await anext(slow)
        assert slow._reader is not None
        await eventually(lambda: slow._reader.is_held_back, 20)
        quick_job = await queue.add("n", 500)
        began = time.monotonic()
        chunks = await read(quick_job.stream())
        took = time.monotonic() - began
        slow.close()
        await slow_job.result(timeout=30)
    assert kept_text(chunks) == "".join(f"{i} " for i in range(500))
    assert took < 15
