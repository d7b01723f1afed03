"""What stays of a finished job, and for how long."""

import asyncio

import pytest

from glidemq_core import Keep, NewJob, WrongState
from tests.harness.jobs import until_counted, until_state
from tests.harness.processes import eventually


async def busy(job):
    """Leaves something of everything that a job can own."""
    await job.stream_chunk("content", "x")
    await job.log("line")
    await job.progress(1)
    await job.report_usage(model="m", tokens={"input": 1})
    await job.step("s", lambda: 1)
    if job.data == "fail":
        raise ValueError("no")


async def quiet(job):
    return job.data


async def done_with(queue, count):
    await until_done(queue)
    return await queue.jobs("completed", limit=count)


async def until_done(queue):
    await until_counted(queue, waiting=0, active=0, delayed=0)


def keys_of(server, queue, job):
    return server.keys(f"glidemq:{{{queue.name}}}:job:{job.id}*")


@pytest.mark.parametrize("data", ["fine", "fail"])
async def test_job_removed_at_once_leaves_nothing_beyond_the_grace_time(
    queue, work, any_server, data
):
    async with work(busy):
        job = await queue.add("n", data, remove_on_complete=True, remove_on_fail=True)
        await queue.signal(job.id, "early")
        await until_done(queue)
    left = keys_of(any_server, queue, job)
    root = f"glidemq:{{{queue.name}}}:job:{job.id}"
    assert left == [root, f"{root}:chunks"]
    assert all(0 < any_server.cmd("PTTL", key) <= 60_000 for key in left)
    assert sum((await queue.counts()).values()) == 0


async def test_job_removed_by_hand_leaves_only_its_stream_for_the_grace_time(
    queue, work, any_server
):
    async with work(busy):
        job = await queue.add("n")
        await job.result(timeout=5)
    await queue.remove(job.id)

    (left,) = keys_of(any_server, queue, job)
    assert left.endswith(":chunks")
    assert 0 < any_server.cmd("PTTL", left) <= 60_000


async def test_ten_newest_stay(queue, work):
    async with work(quiet):
        await queue.add_many(NewJob(name="n", data=i, remove_on_complete=10) for i in range(40))
        kept = await done_with(queue, 100)
    assert [job.data for job in kept] == list(range(30, 40))


async def test_workers_setting_holds_where_the_job_says_nothing(queue, work):
    async with work(quiet, remove_on_complete=True):
        kept = await queue.add("n", "kept", remove_on_complete=False)
        own = await queue.add("n", "own", remove_on_complete=5)
        gone = await queue.add("n", "gone")
        for job in (kept, own, gone):
            await job.result(timeout=5)
    assert await own.snapshot() is not None
    assert await gone.snapshot() is None
    assert await kept.snapshot() is not None


async def test_finished_job_past_its_age_is_gone_by_the_next_tick_of_an_idle_worker(
    queue, work, any_server
):
    async with work(busy):
        job = await queue.add("n", remove_on_complete=Keep(age=0.8))
        await job.result(timeout=5)
        assert await job.snapshot() is not None
        await eventually(lambda: is_gone(job))
    assert [key for key in keys_of(any_server, queue, job) if not key.endswith(":chunks")] == []


async def is_gone(job):
    return await job.snapshot() is None


async def test_age_of_a_retried_job_is_forgotten(queue, work):
    fail = True

    async def handler(job):
        if fail:
            raise ValueError("no")
        await asyncio.sleep(1.1)
        return "second"

    async with work(handler):
        job = await queue.add("n", remove_on_fail=Keep(age=0.8))
        await until_state(queue, job.id, "failed")
        fail = False
        await queue.retry(job.id)
        assert await job.result(timeout=5) == "second"
        assert (await job.snapshot()).state == "completed"


async def test_failed_and_completed_jobs_are_counted_apart(queue, work):
    async def handler(job):
        if job.data % 2:
            raise ValueError("no")

    async with work(handler):
        await queue.add_many(
            NewJob(name="n", data=i, remove_on_complete=2, remove_on_fail=3) for i in range(20)
        )
        await until_done(queue)
    counts = await queue.counts()
    assert (counts["completed"], counts["failed"]) == (2, 3)


async def test_id_of_a_removed_job_is_a_new_job_with_a_new_stream(queue, work, any_server):
    async with work(busy):
        for remove in (queue.remove, None):
            job = await queue.add("n", job_id="mine", remove_on_complete=remove is None)
            await job.result(timeout=5)
            if remove:
                await remove("mine")
        again = await queue.add("n", job_id="mine")
        assert not again.is_duplicate
        await again.result(timeout=5)
    assert [chunk.content for chunk in await queue.read_stream("mine")] == ["x", "completed"]
    assert {any_server.cmd("PTTL", key) for key in keys_of(any_server, queue, again)} == {-1}
    assert len(await queue.log("mine")) == 1
    assert (await again.snapshot()).usage.total_tokens == 1


async def test_running_job_is_not_removed(queue, work):
    running, go = asyncio.Event(), asyncio.Event()

    async def handler(job):
        running.set()
        await go.wait()

    async with work(handler):
        job = await queue.add("n")
        await running.wait()
        with pytest.raises(WrongState, match="active"):
            await queue.remove(job.id)
        go.set()
        await job.result(timeout=5)


@pytest.mark.parametrize("options", [{}, {"delay": 60}])
async def test_job_that_never_ran_is_removed_without_a_trace(queue, any_server, options):
    job = await queue.add("n", ttl=30, **options)
    await queue.remove(job.id)

    assert keys_of(any_server, queue, job) == []
    assert any_server.cmd("ZCARD", f"glidemq:{{{queue.name}}}:expiring") == 0


async def test_log_and_errors_keep_their_last_lines(queue, work):
    async def handler(job):
        if job.attempt == 25:
            for i in range(30):
                await job.log(f"{i:04}")
            return
        raise ValueError(str(job.attempt))

    async with work(handler):
        job = await queue.add("n", attempts=25)
        await job.result(timeout=10)
    assert [error.message for error in (await job.snapshot()).errors] == [
        str(n) for n in range(5, 25)
    ]
    assert await queue.log(job.id, start=28) == ["0028", "0029"]
