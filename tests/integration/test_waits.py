"""Waits: sleeps, signals and their deadlines. A job that waits holds nothing, and goes on once."""

import asyncio
from datetime import UTC, datetime

import pytest

from glidemq_core import InvalidOption, JobFailed, JobNotFound, Queue, SignalTimeout, WrongState
from tests.harness.jobs import until_state
from tests.harness.processes import eventually


async def wait_for_go(job):
    signal = await job.wait_for_signal("go")
    return signal.data


async def test_waiting_job_holds_no_slot_and_goes_on_with_what_the_signal_carries(queue, work):
    async with work(wait_for_go, concurrency=1):
        first = await queue.add("n")
        await until_state(queue, first.id, "suspended")
        second = await queue.add("n")
        await until_state(queue, second.id, "suspended")

        assert await second.signal("go", {"yes": [1, "ü"]}) is True
        assert await second.result(timeout=5) == {"yes": [1, "ü"]}
        assert (await first.snapshot()).state == "suspended"
        await first.signal("go", 2)
        assert await first.result(timeout=5) == 2
    assert (await first.snapshot()).attempt == 1
    assert (await first.snapshot()).stalled == 0


@pytest.mark.parametrize("when", ["before the worker", "while running"])
async def test_signal_that_comes_before_its_wait_is_kept(queue, work, when):
    begun, go = asyncio.Event(), asyncio.Event()

    async def handler(job):
        begun.set()
        await go.wait()
        return (await job.wait_for_signal("go")).data

    job = await queue.add("n")
    if when == "before the worker":
        go.set()
        await job.signal("go", 7)
    async with work(handler):
        await begun.wait()
        if when == "while running":
            await job.signal("go", 7)
            go.set()
        assert await job.result(timeout=5) == 7
    assert (await job.snapshot()).run == 1  # it did not even park


async def test_signals_of_a_name_are_taken_in_order_each_once(queue, work):
    async def handler(job):
        got = [(await job.wait_for_signal("a")).data for _ in range(3)]
        other = (await job.wait_for_signal("b")).data
        return [*got, other, sorted(str(s.data) for s in job.signals)]

    job = await queue.add("n")
    await job.signal("b", "b0")
    for i in range(2):
        await job.signal("a", i)
    async with work(handler):
        await until_state(queue, job.id, "suspended")
        await job.signal("a", 2)
        assert await job.result(timeout=5) == [0, 1, 2, "b0", ["0", "1", "2", "b0"]]


async def test_suspend_takes_a_signal_of_any_name(queue, work):
    async def handler(job):
        signal = await job.suspend(reason="ask the boss")
        return [signal.name, signal.data, signal.id]

    async with work(handler):
        job = await queue.add("n")
        await until_state(queue, job.id, "suspended")
        (listed,) = await queue.suspended()
        await queue.signal(job.id, "whatever", 1, signal_id="s-1")
        assert await job.result(timeout=5) == ["whatever", 1, "s-1"]
    assert (listed.job_id, listed.waits_for, listed.reason) == (job.id, "*", "ask the boss")
    assert listed.deadline is None
    assert abs((datetime.now(UTC) - listed.since).total_seconds()) < 10


async def test_listed_wait_has_its_reason_its_beginning_and_its_deadline(queue, work):
    async with work({"ask": asks}):
        job = await queue.add("ask")
        await until_state(queue, job.id, "suspended")
        (listed,) = await queue.suspended()
    assert (listed.job_name, listed.waits_for, listed.reason) == ("ask", "approve", "over $100")
    assert abs((datetime.now(UTC) - listed.since).total_seconds()) < 10
    assert 59 <= (listed.deadline - listed.since).total_seconds() <= 61


async def asks(job):
    await job.wait_for_signal("approve", timeout=60, reason="over $100")


async def test_same_signal_sent_twice_is_one_message(queue, work):
    async def handler(job):
        first = (await job.wait_for_signal("go")).data
        try:
            return [first, (await job.wait_for_signal("go", timeout=0.1)).data]
        except SignalTimeout:
            return [first, "no second"]

    job = await queue.add("n")
    assert await queue.signal(job.id, "go", 1, signal_id="x") is True
    assert await queue.signal(job.id, "go", 1, signal_id="x") is False
    async with work(handler):
        assert await job.result(timeout=5) == [1, "no second"]


async def test_signal_that_was_consumed_is_known_when_it_comes_again(queue, work):
    async def handler(job):
        await job.wait_for_signal("go")
        return (await job.wait_for_signal("go")).data

    async with work(handler):
        job = await queue.add("n")
        await queue.signal(job.id, "go", 1, signal_id="x")
        await until_state(queue, job.id, "suspended")
        assert await queue.signal(job.id, "go", 1, signal_id="x") is False
        assert (await job.snapshot()).state == "suspended"
        await queue.signal(job.id, "go", 2, signal_id="y")
        assert await job.result(timeout=5) == 2


async def test_timeout_of_a_wait_raises_in_the_handler_which_may_catch_it(queue, work):
    async def handler(job):
        try:
            await job.wait_for_signal("go", timeout=0.1)
        except SignalTimeout as error:
            return [job.run, str(error)]

    async with work(handler):
        job = await queue.add("n")
        run, text = await job.result(timeout=5)
    assert run == 2
    assert "'go'" in text
    assert job.id in text


async def test_timeout_that_is_not_caught_fails_the_job_with_its_name(queue, work):
    async def handler(job):
        await job.wait_for_signal("go", timeout=0.05)

    async with work(handler):
        job = await queue.add("n")
        with pytest.raises(JobFailed) as caught:
            await job.result(timeout=5)
    assert caught.value.error_class.endswith("SignalTimeout")


async def test_deadline_that_passes_while_no_worker_runs_is_a_timeout_later(queue, work):
    async def handler(job):
        try:
            return (await job.wait_for_signal("go", timeout=0.8)).data
        except SignalTimeout:
            return "too late"

    async with work(handler):
        job = await queue.add("n")
        parked = await until_state(queue, job.id, "suspended")
    await eventually(lambda: datetime.now(UTC) > parked.due_at)
    # Sent after the deadline, before any worker has looked: the mailbox comes first.
    assert (await job.snapshot()).state == "suspended"
    async with work(handler):
        assert await job.result(timeout=5) == "too late"


async def test_deadline_counts_from_the_first_time_the_wait_was_reached(queue, work):
    async def handler(job):
        try:
            await asyncio.gather(
                job.wait_for_signal("other"), job.wait_for_signal("go", timeout=1.5)
            )
        except SignalTimeout:
            return "late"

    async with work(handler):
        job = await queue.add("n")
        first = await until_state(queue, job.id, "suspended")
        await asyncio.sleep(0.2)
        await job.signal("other")  # one of the two: it comes to the other wait once more
        await eventually(lambda: _run(job, 2))
        assert (await until_state(queue, job.id, "suspended")).due_at == first.due_at
        assert await job.result(timeout=5) == "late"
        done = await job.snapshot()
    assert (done.finished_at - first.waits_since).total_seconds() < 4


async def _run(job, number):
    return (await job.snapshot()).run == number


async def test_sleep_parks_for_its_time_and_is_not_slept_again(queue, work):
    runs = []

    async def handler(job):
        runs.append(job.run)
        await job.sleep(0.8)
        if len(runs) == 2:
            raise ValueError("once")
        return "up"

    async with work(handler):
        job = await queue.add("n", attempts=2)
        sleeping = await until_state(queue, job.id, "delayed")
        assert sleeping.reason == "sleep"
        assert await job.result(timeout=5) == "up"
        done = await job.snapshot()
    assert runs == [1, 2, 3]
    assert (done.attempt, done.stalled) == (2, 0)
    assert 0.78 <= (done.finished_at - sleeping.created_at).total_seconds() < 5


async def test_time_parked_does_not_count_for_the_timeout_of_a_run(queue, work):
    async def handler(job):
        await job.sleep(0.9)
        return "fine"

    async with work(handler):
        job = await queue.add("n", timeout=0.8)
        assert await job.result(timeout=5) == "fine"


async def test_signal_of_64_kib_is_taken_and_a_larger_one_refused_before_it_is_sent(queue, work):
    async with work(wait_for_go):
        job = await queue.add("n")
        with pytest.raises(InvalidOption) as caught:
            await job.signal("go", "x" * 65_536)
        await job.signal("go", "x" * 65_300)
        assert await job.result(timeout=5) == "x" * 65_300
    assert caught.value.field == "data"


async def test_hundred_messages_fill_a_mailbox_and_one_more_is_refused(queue, work):
    async def handler(job):
        return [(await job.wait_for_signal("go")).data for _ in range(101)]

    job = await queue.add("n")
    for i in range(100):
        await job.signal("go", i)
    with pytest.raises(WrongState, match="mailbox"):
        await job.signal("go", "too many")
    async with work(handler):
        await until_state(queue, job.id, "suspended")
        await job.signal("go", 100)  # there is room again
        assert await job.result(timeout=10) == list(range(101))


async def test_signal_to_a_job_that_has_ended_or_never_was_is_refused(queue, work):
    async def done(job):
        return None

    async with work(done):
        job = await queue.add("n")
        await job.result(timeout=5)
        with pytest.raises(WrongState, match="completed"):
            await job.signal("go")
        with pytest.raises(JobNotFound):
            await queue.signal("nobody", "go")
        removed = await queue.add("n", remove_on_complete=True)
        await removed.result(timeout=5)
        with pytest.raises(JobNotFound):
            await removed.signal("go")


async def test_two_waits_for_one_name_at_once_are_refused(queue, work):
    async def handler(job):
        await asyncio.gather(job.wait_for_signal("go"), job.wait_for_signal("go"))

    async with work(handler):
        job = await queue.add("n")
        with pytest.raises(JobFailed) as caught:
            await job.result(timeout=5)
    assert "waited for already" in str(caught.value) + str(caught.value.__cause__) + (
        caught.value.traceback
    )


async def test_waits_for_several_names_at_once_end_with_the_signals_of_both(queue, work):
    async def handler(job):
        a, b = await asyncio.gather(job.wait_for_signal("a"), job.wait_for_signal("b"))
        return [a.data, b.data]

    async with work(handler):
        job = await queue.add("n")
        await until_state(queue, job.id, "suspended")
        await job.signal("b", 2)
        await job.signal("a", 1)
        assert await job.result(timeout=5) == [1, 2]


async def test_first_of_two_waits_can_be_awaited_either_way(queue, work):
    """Of two waits the signal of either one wakes the job, whichever was registered last."""

    async def handler(job):
        waits = [asyncio.ensure_future(job.wait_for_signal(name)) for name in ("a", "b")]
        done, pending = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in pending:
            wait.cancel()
        return [wait.result().name for wait in done]

    async with work(handler):
        job = await queue.add("n")
        await until_state(queue, job.id, "suspended")
        await job.signal("a")
        assert await job.result(timeout=5) == ["a"]


@pytest.mark.parametrize("fresh", [False, True])
async def test_retry_of_a_failed_job_keeps_its_waits_unless_it_is_to_be_fresh(queue, work, fresh):
    asked = []

    async def handler(job):
        signal = await job.wait_for_signal("go", timeout=None if not asked else 0.2)
        asked.append(signal.data)
        if len(asked) == 1:
            raise ValueError("after the wait")
        return signal.data

    async with work(handler):
        job = await queue.add("n")
        await job.signal("go", 1)
        with pytest.raises(JobFailed):
            await job.result(timeout=5)
        await queue.retry(job.id, fresh=fresh)
        if fresh:
            with pytest.raises(JobFailed, match="SignalTimeout"):
                await job.result(timeout=5)
        else:
            assert await job.result(timeout=5) == 1


@pytest.mark.parametrize(
    "wait", ["sleep", "suspend", "wait_for_signal", "wait_for_children", "move_to_delayed"]
)
async def test_waits_need_an_async_handler_and_say_so(queue, work, wait):
    def handler(job):
        getattr(job, wait)()

    async with work(handler):
        job = await queue.add("n", attempts=3)
        with pytest.raises(JobFailed, match=f"job.{wait} needs an async handler") as caught:
            await job.result(timeout=5)
    assert (caught.value.reason, caught.value.attempt) == ("unrecoverable", 1)


async def test_wait_outlives_every_client(any_url, queue_name, work, queue):
    async with work(wait_for_go):
        job = await queue.add("n")
        await until_state(queue, job.id, "suspended")
    async with Queue(queue_name, connection=any_url) as other:
        await other.signal(job.id, "go", "from elsewhere")
    async with work(wait_for_go):
        assert await job.result(timeout=5) == "from elsewhere"


@pytest.mark.parametrize("wait", ["sleep", "wait_for_signal", "suspend", "wait_for_children"])
async def test_wait_inside_of_a_step_is_refused_by_name(queue, work, wait):
    async def waits(job):
        args = {"sleep": (1,), "wait_for_signal": ("go",)}.get(wait, ())
        await getattr(job, wait)(*args)

    async def handler(job):
        await job.step("s", waits, job, inputs=None)

    async with work(handler):
        job = await queue.add("n", attempts=3)
        with pytest.raises(JobFailed, match=f"job.{wait} inside of step 's'") as caught:
            await job.result(timeout=5)
    assert caught.value.reason == "unrecoverable"
