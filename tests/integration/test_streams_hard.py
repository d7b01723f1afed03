"""Streams under numbers: five hundred at once, `latest`, and readers of what was reset."""

import asyncio

import pytest

from glidemq_core import InvalidOption, NewJob, kept_text, sse
from tests.harness.jobs import read, subscribers
from tests.harness.processes import eventually


async def test_five_hundred_streams_at_once_are_each_whole_over_one_subscription(
    queue, work, any_server
):
    subscribed = []

    async def handler(job):
        if job.data == 499:
            subscribed.append(await eventually(lambda: subscribers(any_server, queue)))
        for i in range(12):
            await job.stream_chunk("content", f"{job.data}:{i} ")
            await asyncio.sleep(0)
        return "".join(f"{job.data}:{i} " for i in range(12))

    async with work(handler, concurrency=500):
        jobs = await queue.add_many(NewJob(name="n", data=i) for i in range(500))
        seen = await asyncio.gather(*(read(job.stream()) for job in jobs))
        results = [await job.result(timeout=10) for job in jobs]
    assert subscribed == [1]
    assert [kept_text(chunks) for chunks in seen] == results
    assert all(chunks[-1].type == "end" for chunks in seen)


async def test_latest_leaves_out_what_was_superseded_before_it_was_delivered(queue, work):
    async def handler(job):
        await job.stream_chunk("content", f"attempt {job.attempt} ")
        if job.attempt < 3:
            raise ValueError("again")
        return "attempt 3 "

    async with work(handler):
        job = await queue.add("n", attempts=3)
        result = await job.result(timeout=5)
    late = await read(queue.stream(job.id, latest=True))
    whole = await read(job.stream())
    assert [chunk.type for chunk in late] == ["content", "end"]
    assert kept_text(late) == kept_text(whole) == result
    assert [chunk.type for chunk in whole].count("reset") == 2


async def test_latest_reader_still_hears_of_a_reset_of_what_it_was_given(queue, work):
    seen_wrong = asyncio.Event()

    async def handler(job):
        if job.attempt == 1:
            await job.stream_chunk("content", "wrong")
            await seen_wrong.wait()
            raise ValueError("again")
        await job.stream_chunk("content", "right")
        return "right"

    async with work(handler):
        job = await queue.add("n", attempts=2)
        got = []
        async for chunk in queue.stream(job.id, latest=True):
            got.append(chunk)
            seen_wrong.set()
    assert [chunk.type for chunk in got] == ["content", "reset", "content", "end"]
    assert kept_text(got) == "right"


async def test_chunks_of_a_run_are_numbered_without_a_gap(queue, work):
    async def handler(job):
        for i in range(700):
            await job.stream_chunk("content", str(i))

    async with work(handler):
        job = await queue.add("n")
        chunks = [chunk for chunk in await read(job.stream()) if chunk.type == "content"]
    assert [chunk.seq for chunk in chunks] == list(range(1, 701))
    assert {chunk.epoch for chunk in chunks} == {1}


async def test_retry_of_a_finished_job_streams_anew(queue, work):
    async def handler(job):
        await job.stream_chunk("content", f"{job.run} ")
        if job.run == 1:
            raise ValueError("broken")
        return f"{job.run} "

    async with work(handler):
        job = await queue.add("n")
        first = await read(job.stream())
        await queue.retry(job.id)
        result = await job.result(timeout=5)
        second = await read(job.stream())
    assert first[-1].content == "failed"
    assert kept_text(second) == result
    assert [chunk.type for chunk in second].count("end") == 1


async def test_who_waits_for_a_result_asks_nothing_while_the_job_streams(queue, work, any_server):
    async def handler(job):
        before = any_server.calls("fcall")
        for i in range(50):
            await job.stream_chunk("content", "a")
            await job.progress(i)  # an answered call: the chunk before it was a call of its own
        return any_server.calls("fcall") - before

    async with work(handler):
        job = await queue.add("n")
        calls = await job.result(timeout=5)
    assert calls < 2 * 50 + 25


async def test_browser_that_reconnects_with_the_last_events_id_goes_on_behind_it(queue, work):
    async def handler(job):
        for i in range(20):
            await job.stream_chunk("content", f"{i}\n\ndata: x")

    async def frames(headers, count=None):
        chunks = queue.stream(job.id, after=sse.last_event_id(headers))
        found = []
        async for frame in sse.events(chunks):
            found.append(frame)
            if len(found) == count:
                break
        return found

    async with work(handler):
        job = await queue.add("n")
        whole = await frames({})
        first = await frames({}, count=7)
        last_id = first[-1].partition(b"\n")[0].removeprefix(b"id: ").decode()
        rest = await frames({"Last-Event-ID": last_id})
    assert first + rest == whole
    assert len(whole) == 21


async def test_chunks_that_a_thread_does_not_wait_for_are_in_order_and_before_the_end(queue, work):
    def handler(job):
        texts = [f"{i} " for i in range(500)]
        for text in texts:
            job.write_chunks([("content", text, {})])
        return "".join(texts)

    async with work(handler):
        job = await queue.add("n")
        result = await job.result(timeout=10)
        chunks = await read(job.stream())
    assert kept_text(chunks) == result
    assert chunks[-1].type == "end"


async def test_thread_hears_of_a_chunk_that_was_refused_at_its_next_one(queue, work):
    def handler(job):
        job.write_chunks([("content", None, {})])
        job.progress(1)  # answered by the event loop, which has seen the chunk by then
        with pytest.raises(InvalidOption):
            job.write_chunks([("content", "a", {})])

    async with work(handler):
        job = await queue.add("n")
        assert await job.result(timeout=5) is None
