"""Steps: what was paid for once is not paid for again, across attempts, parks and crashes."""

import asyncio
import threading

import pytest

from glidemq_core import Budget, InvalidOption, JobFailed, Ledger, kept_text
from tests.harness.jobs import lose, until_state
from tests.harness.processes import eventually


async def test_finished_steps_are_not_repeated_by_the_next_attempt(queue, work):
    calls = []

    async def spend(what):
        calls.append(what)
        return {"bought": what}

    async def handler(job):
        one = await job.step("buy", spend, "one")
        two = await job.step("buy", spend, "two")
        if job.attempt == 1:
            raise ValueError("after both")
        return [one, two]

    async with work(handler):
        job = await queue.add("n", attempts=2)
        assert await job.result(timeout=5) == [{"bought": "one"}, {"bought": "two"}]
    assert calls == ["one", "two"]


async def test_step_that_raises_is_not_stored_and_runs_again(queue, work):
    calls = []

    def fails_once():
        calls.append(1)
        if len(calls) == 1:
            raise ValueError("not yet")
        return "fine"

    async def handler(job):
        return await job.step("try", fails_once)

    async with work(handler):
        job = await queue.add("n", attempts=2)
        assert await job.result(timeout=5) == "fine"
    assert len(calls) == 2


@pytest.mark.parametrize(
    ("on_change", "result", "calls"),
    [("raise", None, [1]), ("rerun", 20, [1, 2]), ("keep", 10, [1])],
)
async def test_step_called_with_other_inputs_does_what_it_was_told(
    queue, work, *, on_change, result, calls
):
    made = []

    async def tenfold(number):
        made.append(number)
        return number * 10

    async def handler(job):
        answer = await job.step("s", tenfold, job.attempt, on_change=on_change)
        if job.attempt == 1:
            raise ValueError("again")
        return answer

    async with work(handler):
        job = await queue.add("n", attempts=5)
        if result is None:
            with pytest.raises(JobFailed) as caught:
                await job.result(timeout=5)
            assert caught.value.reason == "unrecoverable"
            assert caught.value.error_class.endswith("StepChanged")
        else:
            assert await job.result(timeout=5) == result
    assert made == calls


async def test_rerun_of_a_changed_step_is_remembered_too(queue, work):
    made = []

    async def spend(number):
        made.append(number)
        return number

    async def handler(job):
        answer = await job.step("s", spend, min(job.attempt, 2), on_change="rerun")
        if job.attempt < 3:
            raise ValueError("again")
        return answer

    async with work(handler):
        job = await queue.add("n", attempts=3)
        assert await job.result(timeout=5) == 2
    assert made == [1, 2]


async def test_inputs_say_what_a_result_depends_on(queue, work):
    async def handler(job):
        answer = await job.step("s", lambda text: text, f"at {job.attempt}", inputs="the same")
        if job.attempt == 1:
            raise ValueError("again")
        return answer

    async with work(handler):
        job = await queue.add("n", attempts=2)
        assert await job.result(timeout=5) == "at 1"


@pytest.mark.parametrize(("fresh", "count"), [(False, 1), (True, 2)])
async def test_retry_keeps_steps_unless_it_is_to_be_fresh(queue, work, *, fresh, count):
    made = []

    async def handler(job):
        await job.step("s", lambda: made.append(1))
        if not fixed.is_set():
            raise ValueError("broken")
        return "fixed"

    fixed = asyncio.Event()
    async with work(handler):
        job = await queue.add("n")
        with pytest.raises(JobFailed):
            await job.result(timeout=5)
        fixed.set()
        await queue.retry(job.id, fresh=fresh)
        assert await job.result(timeout=5) == "fixed"
    assert len(made) == count


@pytest.mark.parametrize(("on_begun", "made"), [("retry", 2), ("fail", 1)])
async def test_paid_step_that_began_and_never_ended_is_known(queue, work, *, on_begun, made):
    calls = []

    async def breaks_off():
        calls.append(1)
        if len(calls) == 1:
            raise ConnectionError("in the middle")
        return "paid"

    async def handler(job):
        return await job.step("s", breaks_off, paid=True, on_begun=on_begun)

    async with work(handler):
        job = await queue.add("n", attempts=3)
        if on_begun == "fail":
            with pytest.raises(JobFailed) as caught:
                await job.result(timeout=5)
            assert caught.value.error_class == "glidemq_core.errors.PossiblyBilled"
        else:
            assert await job.result(timeout=5) == "paid"
    assert len(calls) == made


async def test_result_that_json_cannot_hold_or_is_too_large_fails_the_job_by_name(queue, work):
    async def handler(job):
        await job.step("big", lambda: object() if job.data == "odd" else "x" * 300_000)

    async with work(handler):
        for data in ("odd", "big"):
            job = await queue.add("n", data, attempts=3)
            with pytest.raises(JobFailed, match="big") as caught:
                await job.result(timeout=5)
            assert (caught.value.reason, caught.value.attempt) == ("unrecoverable", 1)


async def test_more_than_a_thousand_steps_are_refused(queue, work):
    async def handler(job):
        for i in range(1001):
            await job.step("s", lambda i=i: i)

    async with work(handler):
        job = await queue.add("n")
        with pytest.raises(JobFailed, match="1000 steps"):
            await job.result(timeout=20)


async def test_three_phases_with_sleeps_between_run_each_once_though_one_is_lost(queue, work):
    """A job that moves on through delays; its second phase loses its lease in the middle."""
    done = []

    async def phase(job, name):
        if name == "two" and not done.count("lost"):
            done.append("lost")
            await lose(job)
        done.append(name)

    async def handler(job):
        for name in ("one", "two", "three"):
            await job.step(name, phase, job, name)
            await job.sleep(0.02)
        return "through"

    async with work(handler, lock_duration=1):
        job = await queue.add("n")
        assert await job.result(timeout=20) == "through"
        ended = await job.snapshot()
    assert done == ["one", "lost", "two", "three"]
    assert (ended.attempt, ended.stalled) == (1, 1)


async def test_step_of_a_run_that_lost_its_lease_is_not_stored(queue, work, any_server):
    seen, go = [], asyncio.Event()

    async def slow(run):
        seen.append(run)
        if run == 1:
            await go.wait()
        return run

    async def handler(job):
        try:
            return await job.step("s", slow, job.run, inputs=None)
        except asyncio.CancelledError:
            go.set()
            raise

    async with work(handler, concurrency=2, lock_duration=1):
        job = await queue.add("n")
        await eventually(lambda: seen == [1])
        key = f"glidemq:{{{queue.name}}}:job:{job.id}"
        await eventually(lambda: any_server.cmd("HGET", key, "started_run") == b"1")
        # Another worker has taken it, as far as the server knows.
        any_server.cmd("HSET", key, "token", "0-forged")
        any_server.cmd("ZADD", f"glidemq:{{{queue.name}}}:active", 1, job.id)
        assert await job.result(timeout=20) == 2
    assert seen == [1, 2]


@pytest.mark.parametrize("kind", ["async", "thread"])
async def test_interrupted_step_is_salvaged_from_what_it_had_streamed(queue, work, kind):
    calls, given = [], []

    async def says(job):
        calls.append(1)
        for word in ("half ", "an "):
            await job.stream_chunk("content", word)
        raise ConnectionError("in the middle")

    async def handler(job):
        await job.stream_chunk("content", "before ")
        return await job.step("s", says, job, paid=True, on_begun="salvage", salvage=mend)

    def mend(text):
        given.append(text)
        return f"{text}answer"

    def threaded(job):
        def says():
            calls.append(1)
            for word in ("half ", "an "):
                job.stream_chunk("content", word)
            raise ConnectionError("in the middle")

        job.stream_chunk("content", "before ")
        return job.step("s", says, paid=True, on_begun="salvage", salvage=mend)

    async with work(handler if kind == "async" else threaded):
        job = await queue.add("n", attempts=3)
        assert await job.result(timeout=5) == "half an answer"
    assert (len(calls), given) == (1, ["half an "])


async def test_text_that_a_salvage_keeps_stays_with_the_readers(queue, work):
    async def says(job):
        await job.stream_chunk("content", "half ")
        raise ConnectionError("in the middle")

    async def handler(job):
        await job.step(
            "s", says, job, paid=True, on_begun="salvage", salvage=lambda text: text, inputs=1
        )
        await job.stream_chunk("content", "and on")

    async with work(handler):
        job = await queue.add("n", attempts=3)
        await job.result(timeout=5)
        assert kept_text([chunk async for chunk in job.stream()]) == "half and on"


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"on_begun": "salvage", "paid": True}, "salvage"),
        ({"salvage": len, "paid": True}, "salvage"),
        ({"on_begun": "fail"}, "on_begun"),
        ({"on_begun": "guess", "paid": True}, "on_begun"),
        ({"on_change": "Keep"}, "on_change"),
    ],
)
async def test_policy_of_a_step_that_makes_no_sense_is_named(queue, work, options, field):
    async def handler(job):
        with pytest.raises(InvalidOption) as caught:
            await job.step("s", list, **options)
        return caught.value.field

    async with work(handler):
        assert await (await queue.add("n")).result(timeout=5) == field


async def test_steps_of_a_handler_in_a_thread_run_there_once(queue, work):
    made = []

    def handler(job):
        def draft(word):
            made.append(threading.current_thread() is thread)
            job.log("inside of the step")
            return word * 2

        thread = threading.current_thread()
        got = [job.step("draft", draft, word) for word in ("a", "b")]
        with pytest.raises(KeyError):
            job.step("fails", {}.__getitem__, "x")
        if job.attempt == 1:
            raise ConnectionError("once")
        return got

    async with work(handler):
        job = await queue.add("n", attempts=2)
        assert await job.result(timeout=5) == ["aa", "bb"]
    assert made == [True, True]


@pytest.mark.parametrize("kind", ["async", "thread"])
async def test_steps_inside_of_a_step_do_not_count_for_those_after_it(queue, work, kind):
    made = []

    def make(word):
        made.append(word)
        return word

    async def outer(job):
        return [await job.step("part", make, word) for word in ("a", "b")]

    async def handler(job):
        got = await job.step("outer", outer, job, inputs="outer")
        got.append(await job.step("part", make, "c", inputs="c"))
        await job.stream_chunk("content", "after")
        if job.attempt < 3:
            raise ConnectionError("again")
        return got

    def outer_now(job):
        return [job.step("part", make, word) for word in ("a", "b")]

    def handler_now(job):
        got = job.step("outer", outer_now, job, inputs="outer")
        got.append(job.step("part", make, "c", inputs="c"))
        job.stream_chunk("content", "after")
        if job.attempt < 3:
            raise ConnectionError("again")
        return got

    async with work(handler if kind == "async" else handler_now):
        job = await queue.add("n", attempts=3)
        chunks = [chunk async for chunk in job.stream()]
        assert await job.result(timeout=5) == ["a", "b", "c"]
    assert made == ["a", "b", "c"]
    # Nothing is left unread in the journal, so what follows is no replay.
    assert kept_text(chunks) == "after"


async def test_child_added_inside_of_a_step_needs_a_key(queue, work):
    async def handler(job):
        with pytest.raises(InvalidOption, match="key"):
            await job.step("spawn", job.add_child, "leaf")
        return await job.step("spawn", lambda: job.add_child("leaf", key="mine"), inputs="mine")

    async with work({"n": handler, "leaf": lambda _job: None}):
        job = await queue.add("n")
        assert await job.result(timeout=5)


async def test_handler_in_a_thread_is_parked_while_it_has_not_started(queue, work, any_url):
    pause = Budget(max_total_tokens=5, on_exceeded="pause")

    async with Ledger(connection=any_url) as ledger, work(lambda job: job.run):
        await ledger.open_budget("b", pause)
        job = await queue.add("n", budgets=["b"], estimate={"tokens": 10})
        await until_state(queue, job.id, "delayed")
        await ledger.update_budget("b", Budget(max_total_tokens=10, on_exceeded="pause"))
        assert await job.result(timeout=5) == 2
