"""Workers: how they start, stop and fail; and what handlers may be."""

import asyncio
import functools
import sys

import pytest

from glidemq_core import (
    ConnectionLost,
    InvalidOption,
    JobFailed,
    Queue,
    ServerError,
    UnrecoverableError,
    Worker,
    current_job,
)
from tests.harness.jobs import read, until_state
from tests.harness.processes import eventually


async def echo(job):
    return job.data


class Echo:
    async def __call__(self, job):
        return job.data


async def two(prefix, job):
    return job.data


def in_thread(job):
    return job.data


@pytest.mark.parametrize(
    "handler",
    [echo, Echo(), functools.partial(two, "x"), in_thread, {"n": echo}, lambda job: job.data],
    ids=["function", "object", "partial", "thread", "mapping", "lambda"],
)
async def test_handler_can_be_anything_that_is_called_with_the_job(queue, work, handler):
    async with work(handler):
        assert await (await queue.add("n", "x")).result(timeout=5) == "x"


async def test_sync_handler_that_answers_a_coroutine_is_refused_with_an_explanation(queue, work):
    made = []

    def handler(job):
        made.append(echo(job))
        return made[-1]

    async with work(handler):
        with pytest.raises(JobFailed, match="coroutine"):
            await (await queue.add("n")).result(timeout=5)
    made[0].close()


async def test_job_in_the_handlers_hands_is_found_from_anywhere_inside(queue, work):
    async def handler(job):
        assert await asyncio.create_task(inner()) == job.id
        assert await asyncio.to_thread(lambda: current_job().id) == job.id
        return job.id

    async def inner():
        return current_job().id

    async with work(handler):
        job = await queue.add("n")
        assert await job.result(timeout=5) == job.id
    assert current_job() is None


class Odd(BaseException):
    """Not an Exception, as some libraries have them."""


@pytest.mark.parametrize(
    "error", [asyncio.CancelledError, Odd, UnrecoverableError, ExceptionGroup("g", [ValueError()])]
)
@pytest.mark.parametrize("kind", ["async", "thread"])
async def test_whatever_a_handler_raises_ends_its_run_and_frees_its_slot(queue, work, error, kind):
    def fail():
        raise error

    async def handler(job):
        return fail() if job.data == "bad" else "good"

    def threaded(job):
        return fail() if job.data == "bad" else "good"

    async with work(handler if kind == "async" else threaded):
        bad, good = await queue.add("n", "bad"), await queue.add("n", "good")
        with pytest.raises(JobFailed):
            await bad.result(timeout=5)
        assert await good.result(timeout=5) == "good"


@pytest.mark.parametrize("kind", ["async", "thread"])
async def test_exit_in_a_handler_ends_the_job_and_not_the_worker(queue, work, kind):
    async def handler(job):
        sys.exit(1)

    def threaded(job):
        sys.exit(1)

    async with work(handler if kind == "async" else threaded):
        for _ in range(2):
            with pytest.raises(JobFailed, match="SystemExit"):
                await (await queue.add("n")).result(timeout=5)


async def test_job_ends_whatever_is_wrong_with_what_cleans_up_after_its_handler(
    queue, work, caplog
):
    async def broken():
        raise TypeError("of the clearing up")

    async def handler(job):
        job.on_exit(broken)
        return "done"

    async with work(handler):
        assert await (await queue.add("n")).result(timeout=5) == "done"

    assert "of the clearing up" in caplog.text


async def test_worker_whose_turns_are_refused_ends_with_the_servers_words(
    url, server, queue_name, caplog
):
    stopped = asyncio.Event()

    async def handler(job):
        server.cmd("DEL", f"glidemq:{{{queue_name}}}:delayed")
        server.cmd("SET", f"glidemq:{{{queue_name}}}:delayed", "foreign")
        try:
            await asyncio.sleep(30)
        finally:
            stopped.set()

    async with Queue(queue_name, connection=url) as queue:
        await queue.add("n")
        with pytest.raises(ServerError, match="WRONGTYPE"):
            await Worker(queue_name, handler, connection=url, concurrency=2).run()
        await asyncio.wait_for(stopped.wait(), 5)
        with pytest.raises(ServerError, match="WRONGTYPE"):
            async with Worker(queue_name, handler, connection=url):
                await eventually(lambda: "has ended" in caplog.text)


async def test_cancelled_worker_stops_its_handlers_and_gives_their_jobs_back(queue, work):
    started, log = asyncio.Event(), []

    async def handler(job):
        started.set()
        try:
            await asyncio.sleep(30)
            log.append("went on")
        except asyncio.CancelledError:
            log.append("stopped")
            raise

    job = await queue.add("n")
    running = asyncio.create_task(work(handler).run())
    await started.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running

    found = await job.snapshot()
    assert (log, found.state, found.attempt, found.stalled) == (["stopped"], "waiting", 1, 0)


async def test_stop_before_the_start_and_a_second_start_are_fine(queue, work):
    worker = work(echo)
    await worker.stop()
    await worker.run()
    for _ in range(2):
        async with work(echo):
            assert await (await queue.add("n", 1)).result(timeout=5) == 1


async def test_worker_runs_once_at_a_time(work):
    worker = work(echo)
    async with worker:
        with pytest.raises(InvalidOption, match="already"):
            await worker.run()


async def test_error_in_the_body_stops_the_worker_and_is_raised(queue, work):
    with pytest.raises(KeyError):
        async with work(echo):
            raise KeyError
    job = await queue.add("n")
    assert (await job.snapshot()).state == "waiting"


async def test_closed_queue_ends_its_waits_and_can_be_used_again(any_url, queue):
    other = Queue(queue.name, connection=any_url)
    job = await other.add("n")
    result = asyncio.create_task(other.result(job.id))
    chunks = asyncio.create_task(read(other.stream(job.id)))
    await asyncio.sleep(0.05)
    await other.close()

    with pytest.raises(ConnectionLost):
        await asyncio.wait_for(result, 5)
    assert await asyncio.wait_for(chunks, 5) == []
    assert (await other.counts())["waiting"] == 1
    await other.close()
    await other.close()


async def test_closing_one_queue_leaves_the_others_of_its_server_alone(any_url, queue):
    async with Queue("another", connection=any_url) as other:
        await other.counts()
    assert (await queue.counts())["waiting"] == 0


async def test_result_is_delivered_in_a_process_with_a_worker_that_is_stopping(queue, work):
    begun, release = asyncio.Event(), asyncio.Event()

    async def handler(job):
        begun.set()
        await release.wait()
        return "done"

    worker = work(handler)
    async with worker:
        job = await queue.add("n")
        await begun.wait()
        stopping = asyncio.create_task(worker.stop())
        release.set()
        assert await job.result(timeout=5) == "done"
        await stopping


async def test_worker_out_of_grace_gives_running_jobs_back_without_an_attempt(queue, work):
    async def handler(job):
        await asyncio.sleep(30)

    worker = work(handler)
    async with worker:
        job = await queue.add("n")
        await until_state(queue, job.id, "active")
        await worker.stop(grace=0.05)
        found = await job.snapshot()
    assert (found.state, found.attempt, found.stalled) == ("waiting", 1, 0)


async def test_workers_are_listed_with_what_they_hold_after_they_have_gone_silent_too(queue, work):
    started, go_on = asyncio.Event(), asyncio.Event()

    async def handler(job):
        started.set()
        await go_on.wait()

    busy, free = work(handler, name="busy"), work(handler, name="free")
    async with busy:
        job = await queue.add("n")
        await started.wait()
        async with free:
            await eventually(lambda: _are(queue, {busy.name: 1, free.name: 0}))
        go_on.set()
        await job.result(timeout=5)

    await eventually(lambda: _are(queue, {busy.name: 0, free.name: 0}))
    assert all(worker.idle < 60 for worker in await queue.workers())


async def _are(queue: Queue, jobs: dict[str, int]) -> bool:
    return {worker.name: worker.jobs for worker in await queue.workers()} == jobs
