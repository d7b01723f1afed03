"""Attempts and their limits: retry, timeout, ttl, lock, cancel."""

import asyncio
import threading
import time

import pytest

from glidemq_core import (
    Backoff,
    JobCancelled,
    JobFailed,
    JobNotFound,
    UnrecoverableError,
    WrongState,
)
from glidemq_core.retry import delay_after
from tests.harness.jobs import until_ended, until_state
from tests.harness.processes import Process, eventually


class Tries:
    """A handler that fails until its `good` th try, and notes when it was called."""

    def __init__(self, good=10**9, error=lambda: ValueError("no luck")):
        self.good = good
        self.error = error
        self.at = []

    async def __call__(self, job):
        self.at.append(time.monotonic())
        if len(self.at) < self.good:
            raise self.error()
        return job.attempt

    @property
    def gaps(self):
        return [later - earlier for earlier, later in zip(self.at, self.at[1:], strict=False)]


async def test_exponential_retries_come_at_0_100_and_300_ms_and_the_third_failure_is_final(
    queue, work
):
    tries = Tries()
    async with work(tries):
        job = await until_ended(await queue.add("n", attempts=3, backoff=Backoff(delay=0.1)))

    assert 0.1 <= tries.gaps[0] < 2
    assert 0.2 <= tries.gaps[1] < 2
    assert (job.state, job.reason, job.attempt, job.max_attempts, job.run) == (
        "failed",
        "error",
        3,
        3,
        3,
    )
    assert [(error.attempt, error.error_class, error.message) for error in job.errors] == [
        (n, "ValueError", "no luck") for n in (1, 2, 3)
    ]
    assert "no luck" in job.error.traceback


async def test_retry_without_backoff_is_immediate_and_its_success_is_the_result(queue, work):
    tries = Tries(good=3)
    async with work(tries):
        job = await queue.add("n", attempts=5)
        assert await job.result(timeout=5) == 3
        await queue.pause()  # its event is the last
    seen = [event.type async for event in until_paused(queue) if event.job_id == job.id]
    assert seen.count("active") == 3
    assert "delayed" not in seen


async def until_paused(queue):
    async for event in queue.events(after=""):
        if event.type == "paused":
            return
        yield event


async def test_error_can_ask_for_a_longer_wait(queue, work):
    def busy():
        error = ValueError("busy")
        error.retry_after = 0.3
        return error

    tries = Tries(good=2, error=busy)
    async with work(tries):
        await (await queue.add("n", attempts=2, backoff=0.05)).result(timeout=5)
    assert 0.3 <= tries.gaps[0] < 2


async def test_backoff_of_ones_own_sees_attempt_and_error(queue, work):
    seen = []

    def mine(attempt, error):
        seen.append((attempt, str(error)))
        return 0.15

    tries = Tries(good=2)
    async with work(tries, backoffs={"mine": mine}):
        await (await queue.add("n", attempts=2, backoff="mine")).result(timeout=5)
    assert seen == [(1, "no luck")]
    assert 0.15 <= tries.gaps[0] < 2


async def test_backoff_of_ones_own_that_fails_does_not_lose_the_job(queue, work):
    tries = Tries()
    async with work(tries, backoffs={"mine": lambda *_: 1 / 0}):
        job = await queue.add("n", attempts=2, backoff="mine")
        waits = await until_state(queue, job.id, "delayed")
        await queue.promote(job.id)
        assert (await until_ended(job)).state == "failed"
    assert 0.5 < (waits.due_at - waits.started_at).total_seconds() < 1.5


def test_delays_stay_within_their_jitter_and_below_their_cap():
    wire = Backoff(delay=1, max_delay=5, jitter=0.2).to_wire()
    for attempt, full in [(1, 1), (2, 2), (3, 4), (4, 5), (10, 5), (5000, 5)]:
        lowest, highest = (
            delay_after(wire, attempt, ValueError(), {}, rng=lambda r=r: r) for r in (1.0, 0.0)
        )
        assert (lowest, highest) == (pytest.approx(full * 0.8), full)


@pytest.mark.parametrize(
    "error", [UnrecoverableError("never"), type("Final", (Exception,), {"retryable": False})("x")]
)
async def test_unrecoverable_error_is_not_tried_again(queue, work, error):
    tries = Tries(error=lambda: error)
    async with work(tries):
        job = await until_ended(await queue.add("n", attempts=5))
    assert (len(tries.at), job.state, job.attempt) == (1, "failed", 1)


async def test_job_without_a_handler_fails_at_once_and_says_so(queue, work):
    async with work({"known": Tries()}):
        job = await until_ended(await queue.add("unknown", attempts=5))
    assert (job.state, job.attempt) == ("failed", 1)
    assert "unknown" in job.error.message


async def test_retried_job_starts_anew_and_runs_again(queue, work):
    tries = Tries(good=3)
    async with work(tries):
        job = await queue.add("n", attempts=2, backoff=0.01, ttl=60)
        failed = await until_ended(job)
        await queue.pause()
        await queue.retry(job.id)
        waiting = await job.snapshot()
        await queue.resume()

        assert await job.result(timeout=5) == 1
    assert (failed.state, failed.attempt) == ("failed", 2)
    assert (waiting.state, waiting.attempt, waiting.stalled, waiting.error, waiting.finished_at) == (
        "waiting", 1, 0, None, None,
    )  # fmt: skip


async def test_retried_job_that_had_streamed_streams_anew(queue, work):
    async def handler(job):
        await job.stream_chunk("content", f"try {job.run}")
        if job.run == 1:
            raise ValueError("no")

    async with work(handler):
        job = await queue.add("n")
        await until_ended(job)
        await queue.retry(job.id)
        await until_ended(job)
    assert [chunk.content for chunk in await queue.read_stream(job.id)] == ["try 2", "completed"]


async def test_cancelled_job_can_be_retried_and_is_not_cancelled_again(queue, work):
    job = await queue.add("n")
    assert await job.cancel() == "cancelled"
    await queue.retry(job.id)

    async with work(Tries(good=1)):
        assert await job.result(timeout=5) == 1
    assert not (await job.snapshot()).cancel_requested


async def test_only_failed_and_cancelled_jobs_can_be_retried(queue, work):
    release = asyncio.Event()
    running = asyncio.Event()

    async def handler(job):
        running.set()
        await release.wait()

    async with work(handler):
        job = await queue.add("n")
        await running.wait()
        with pytest.raises(WrongState, match="active"):
            await queue.retry(job.id)
        release.set()
        await job.result(timeout=5)
        with pytest.raises(WrongState, match="completed"):
            await queue.retry(job.id)
    with pytest.raises(JobNotFound):
        await queue.retry("nobody")


async def test_run_past_its_timeout_is_stopped_counted_and_has_no_later_effect(queue, work):
    effects, stopped = [], []

    async def handler(job):
        try:
            await asyncio.sleep(5)
            effects.append(job.run)
        except asyncio.CancelledError:
            stopped.append(time.monotonic())
            raise

    async with work(handler):
        started = time.monotonic()
        job = await until_ended(await queue.add("n", timeout=0.2, attempts=2))
    assert len(stopped) == 2
    assert 0.4 <= stopped[1] - started < 4
    assert effects == []
    assert (job.state, job.reason, job.attempt) == ("failed", "timeout", 2)
    assert job.error.error_class.endswith("JobTimeout")


async def test_silent_run_is_stopped_and_one_that_streams_is_not(queue, work):
    one_is_stopped = asyncio.Event()

    async def handler(job):
        if job.data == "silent":
            await asyncio.sleep(30)
        while not one_is_stopped.is_set():
            await job.stream_chunk("content", ".")
            await asyncio.sleep(0.02)
        return "done"

    async with work(handler, concurrency=2):
        talking = await queue.add("n", "talks", idle_timeout=1)
        silent = await until_ended(await queue.add("n", "silent", idle_timeout=1))
        one_is_stopped.set()
        assert await talking.result(timeout=5) == "done"
    assert (silent.state, silent.reason) == ("failed", "timeout")


async def test_thread_handler_past_its_timeout_ends_at_its_next_call_of_the_job(queue, work):
    reached = []

    def handler(job):
        while not job.cancelled:
            time.sleep(0.005)
        reached.append("before")
        job.log("too late")
        reached.append("after")

    async with work(handler):
        job = await until_ended(await queue.add("n", timeout=0.15))
    assert (reached, job.state, job.reason) == (["before"], "failed", "timeout")
    assert await queue.log(job.id) == []


async def test_cancelled_thread_handler_sees_it_and_ends_within_a_second(queue, work):
    started, seen_at = threading.Event(), []

    def handler(job):
        started.set()
        while not job.cancelled:
            time.sleep(0.005)
        seen_at.append(time.monotonic())
        job.log("after the stop")
        return "a result all the same"

    async with work(handler):
        added = await queue.add("n", attempts=3)
        await asyncio.to_thread(started.wait, 5)
        asked_at = time.monotonic()
        assert await added.cancel() == "requested"
        job = await until_ended(added)
    assert 0 <= seen_at[0] - asked_at < 1
    assert (job.state, job.run, job.result) == ("cancelled", 1, None)
    assert await queue.log(job.id) == []


async def test_job_past_its_ttl_never_runs_and_fails_as_expired(queue, work):
    tries = Tries(good=1)
    waiting = await queue.add("n", ttl=0.05)
    delayed = await queue.add("n", ttl=0.05, delay=60)
    await asyncio.sleep(0.06)

    async with work(tries):
        for job in (waiting, delayed):
            with pytest.raises(JobFailed) as failed:
                await job.result(timeout=5)
            assert failed.value.reason == "expired"
    assert tries.at == []
    assert (await waiting.snapshot()).started_at is None


async def test_job_that_expired_while_all_workers_were_busy_does_not_run(queue, work):
    ran, release = [], asyncio.Event()

    async def handler(job):
        ran.append(job.data)
        await release.wait()

    async with work(handler):
        await queue.add("n", "busy")
        await eventually(lambda: ran)
        job = await queue.add("n", "late", ttl=0.05)
        await asyncio.sleep(0.06)
        release.set()
        assert (await until_ended(job)).reason == "expired"
    assert ran == ["busy"]


async def test_job_that_started_in_time_outlives_its_ttl(queue, work):
    tries = Tries(good=2)
    async with work(tries):
        job = await queue.add("n", ttl=0.8, attempts=2, backoff=0.9)
        assert await job.result(timeout=5) == 2
        await until_expired(queue)
        assert (await job.snapshot()).state == "completed"


async def until_expired(queue, ttl=0.01):
    """Wait until a worker has looked at what has expired; `ttl`: all that had no longer has been looked at."""
    job = await until_ended(await queue.add("n", ttl=ttl, delay=60))
    assert job.reason == "expired"


async def test_ttl_of_a_removed_job_does_not_touch_its_successor(queue, work):
    await queue.add("n", job_id="mine", ttl=0.1)
    await queue.remove("mine")
    successor = await queue.add("n", job_id="mine", delay=60)

    async with work(Tries(good=1)):
        await until_expired(queue, ttl=0.15)
        assert (await successor.snapshot()).state == "delayed"


async def test_expired_jobs_do_not_hide_the_ones_behind_them(queue, work):
    for _ in range(5):
        await queue.add("n", ttl=0.02)
    await asyncio.sleep(0.03)
    tries = Tries(good=1)

    async with work(tries, concurrency=5):
        started = time.monotonic()
        await (await queue.add("n")).result(timeout=5)
        assert tries.at[0] - started < 0.5


async def test_cancelled_waiting_job_never_runs(queue, work):
    tries = Tries(good=1)
    job = await queue.add("n")
    assert await job.cancel() == "cancelled"

    async with work(tries):
        await (await queue.add("n")).result(timeout=5)
        with pytest.raises(JobCancelled):
            await job.result(timeout=5)
    assert len(tries.at) == 1
    assert await job.cancel() == "ended"


async def test_cancel_reaches_a_running_handler_within_a_second_and_its_result_is_dropped(
    queue, work
):
    running, stopped = asyncio.Event(), []

    async def handler(job):
        running.set()
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            stopped.append(time.monotonic())
        return "finished all the same"

    async with work(handler):
        job = await queue.add("n", attempts=5)
        await running.wait()
        asked_at = time.monotonic()
        assert await job.cancel() == "requested"
        with pytest.raises(JobCancelled):
            await job.result(timeout=5)
    assert stopped[0] - asked_at < 1
    found = await job.snapshot()
    assert (found.state, found.result) == ("cancelled", None)


BLOCKER = """
    import asyncio, sys, time
    from glidemq_core import Worker

    async def handler(job):
        print("started", flush=True)
        if job.data == "block":
            time.sleep(1.8)     # the event loop stands still
        else:
            await asyncio.sleep(1.5)
        return "first"

    url, queue, lock = sys.argv[1:]
    worker = Worker(queue, handler, connection=url, concurrency=2, lock_duration=float(lock))
    asyncio.run(worker.run())
"""


async def test_handler_that_blocks_its_loop_keeps_its_lease(queue, work, any_url):
    async def second(job):
        return "second"

    with Process(BLOCKER, any_url, queue.name, 0.8) as first:
        job = await queue.add("n", "block")
        await first.line("started")
        async with work(second, lock_duration=0.8):
            assert await job.result(timeout=10) == "first"
    assert (await job.snapshot()).stalled == 0


async def test_jobs_own_lock_outlasts_a_worker_that_stands_still(queue, work, any_url):
    async def second(job):
        return "second"

    with Process(BLOCKER, any_url, queue.name, 0.5) as first:
        job = await queue.add("n", "sleep", lock_duration=60)
        lost = await queue.add("n", "sleep")
        for _ in range(2):
            await first.line("started")
        first.freeze()
        async with work(second, lock_duration=0.5):
            assert await lost.result(timeout=10) == "second"  # after the worker's own lease
            assert (await job.snapshot()).state == "active"
            first.thaw()
            assert await job.result(timeout=10) == "first"


async def test_fleets_with_short_and_long_locks_steal_nothing_from_each_other(queue, work):
    runs = []

    async def handler(job):
        runs.append(job.data)
        await asyncio.sleep(1.4)

    short = work(handler, lock_duration=0.7, concurrency=3)
    long = work(handler, lock_duration=60, concurrency=3)
    async with short, long:
        jobs = [await queue.add("n", i) for i in range(6)]
        for job in jobs:
            await job.result(timeout=5)
    assert sorted(runs) == list(range(6))
    assert {(await job.snapshot()).stalled for job in jobs} == {0}


async def test_failure_for_good_is_logged_without_what_the_error_says(queue, work, caplog):
    async with work(Tries(error=lambda: ValueError("the prompt"))):
        job = await queue.add("n", attempts=2, backoff=0.01)
        await until_ended(job)

    logged = [one.getMessage() for one in caplog.records if job.id in one.getMessage()]
    assert logged == [
        f"job {job.id} (n) failed (error, ValueError): see `glidemq get {queue.name} {job.id}`"
    ]
