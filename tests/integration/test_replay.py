"""Handlers that start again from the top: parks beside other work, and what readers see of it."""

import asyncio

import pytest

from glidemq_core import JobFailed, UnrecoverableError, kept_text
from tests.harness.jobs import lose, read, until_counted
from tests.harness.processes import eventually


async def in_gather(job, side):
    return await asyncio.gather(job.wait_for_signal("go"), job.step("side", side))


async def in_task_group(job, side):
    async with asyncio.TaskGroup() as group:
        a = group.create_task(job.wait_for_signal("go"))
        b = group.create_task(job.step("side", side))
    return a.result(), b.result()


async def in_wait(job, side):
    tasks = [
        asyncio.ensure_future(job.wait_for_signal("go")),
        asyncio.ensure_future(job.step("side", side)),
    ]
    await asyncio.wait(tasks)
    return [task.result() for task in tasks]


async def in_except(job, side):
    paid = asyncio.ensure_future(job.step("side", side))
    try:
        signal = await job.wait_for_signal("go")
    except Exception:  # noqa: BLE001 what users write
        return None, None
    return signal, await paid


@pytest.mark.parametrize("shape", [in_gather, in_task_group, in_wait, in_except])
async def test_park_beside_a_paid_step_lets_it_finish_and_keeps_its_result(queue, work, shape):
    paid, may_end = [], asyncio.Event()

    async def side():
        paid.append("begun")
        await may_end.wait()
        paid.append("ended")
        return "paid"

    async def handler(job):
        signal, result = await shape(job, side)
        return [signal.data, result, job.run]

    async with work(handler):
        job = await queue.add("n")
        await eventually(lambda: paid == ["begun"])
        assert (await job.snapshot()).state == "active"
        may_end.set()
        await until_counted(queue, suspended=1)
        await job.signal("go", 7)
        assert await job.result(timeout=5) == [7, "paid", 2]
    assert paid == ["begun", "ended"]


@pytest.mark.parametrize("shape", [in_gather, in_task_group])
async def test_paid_step_that_fails_beside_a_wait_is_retried_not_blamed_on_the_park(
    queue, work, shape
):
    calls = []

    async def handler(job):
        async def side():
            calls.append(1)
            if len(calls) == 1:
                await eventually(lambda: job._run.parks)
                raise ConnectionError("provider")
            return "paid"

        signal, result = await shape(job, side)
        return [signal.data, result]

    async with work(handler):
        job = await queue.add("n", attempts=3)
        await until_counted(queue, suspended=1)
        await job.signal("go", 7)
        assert await job.result(timeout=5) == [7, "paid"]
    assert len(calls) == 2


async def goes_on(job):
    try:
        await job.wait_for_signal("go")
    except BaseException:  # noqa: BLE001 what must not be done
        return "ignored it"


async def raises_instead(job):
    try:
        await job.wait_for_signal("go")
    except BaseException:  # noqa: BLE001 what must not be done
        raise ValueError("instead") from None


@pytest.mark.parametrize("handler", [goes_on, raises_instead])
async def test_handler_that_goes_on_although_it_asked_to_be_parked_fails_for_good(
    queue, work, handler
):
    async with work(handler):
        job = await queue.add("n", attempts=5)
        with pytest.raises(JobFailed) as caught:
            await job.result(timeout=5)
    assert caught.value.error_class.endswith("ParkIgnored")
    assert caught.value.attempt == 1


def _has_asked(any_server, queue, job):
    return any_server.cmd("HEXISTS", f"glidemq:{{{queue.name}}}:job:{job.id}", "waits")


async def test_wait_that_the_handler_gave_up_does_not_park_it(queue, work, any_server):
    async def gives_up(job):
        waiting = asyncio.ensure_future(job.wait_for_signal("go"))

        async def longer():
            await eventually(lambda: _has_asked(any_server, queue, job))
            waiting.cancel()
            return "through"

        return await job.step("busy", longer, inputs=None)

    async with work(gives_up):
        job = await queue.add("n")
        assert await job.result(timeout=5) == "through"


async def test_reader_sees_what_was_streamed_around_waits_once(queue, work):
    async def handler(job):
        await job.stream_chunk("content", "one ")
        await job.log("one")
        await job.progress(1)
        draft = await job.step("draft", lambda: "draft ")
        await job.stream_chunk("content", draft)
        signal = await job.wait_for_signal("go")
        await job.stream_chunk("content", f"{signal.data} ")
        await job.log("two")
        await job.sleep(0.02)
        await job.stream_chunk("content", "end")
        await job.log("three")
        return f"one draft {signal.data} end"

    async with work(handler):
        job = await queue.add("n")
        live = asyncio.create_task(read(job.stream()))
        await until_counted(queue, suspended=1)
        assert kept_text(await queue.read_stream(job.id)) == "one draft "
        await job.signal("go", "yes")
        result = await job.result(timeout=5)
    texts = [chunk.content for chunk in await live if chunk.type == "content"]
    assert texts == ["one ", "draft ", "yes ", "end"]  # not even a reset was needed
    assert kept_text(await live) == result
    assert await queue.log(job.id) == ["one", "two", "three"]


async def test_text_before_a_wait_stays_though_the_run_was_lost_before_it_parked(
    queue, work, any_server
):
    async def handler(job):
        async def lost():
            await eventually(lambda: _has_asked(any_server, queue, job))
            await queue.signal(job.id, "go")
            await lose(job)

        await job.stream_chunk("content", "before ")
        if job.run == 1:
            asking = asyncio.ensure_future(job.wait_for_signal("go"))
            await job.step("busy", lost, inputs=None)  # in flight, it holds off the park
            await asking
        await job.wait_for_signal("go")
        await job.stream_chunk("content", "after")
        return "before after"

    async with work(handler, lock_duration=1):
        job = await queue.add("n")
        async with asyncio.timeout(15):
            chunks = [chunk async for chunk in job.stream()]
        assert await job.result(timeout=5) == kept_text(chunks) == "before after"
    assert (await job.snapshot()).run == 2


async def test_text_of_an_attempt_that_failed_after_a_wait_is_reset_to_the_wait(queue, work):
    async def handler(job):
        await job.stream_chunk("content", "before ")
        await job.wait_for_signal("go")
        await job.stream_chunk("content", f"attempt {job.attempt}")
        await asyncio.sleep(0.02)
        if job.attempt == 1:
            raise ValueError("again")
        return f"before attempt {job.attempt}"

    async with work(handler):
        job = await queue.add("n", attempts=2)
        live = asyncio.create_task(read(job.stream()))
        await until_counted(queue, suspended=1)
        await job.signal("go")
        assert kept_text(await live) == await job.result(timeout=5)
    late = await read(job.stream(after=None))
    newest = await read(queue.stream(job.id, latest=True))
    assert kept_text(late) == kept_text(newest) == "before attempt 2"
    assert "attempt 1" not in [chunk.content for chunk in newest]


async def test_what_is_streamed_inside_of_a_step_is_kept_with_it(queue, work):
    async def speak(job, text):
        for word in text:
            await job.stream_chunk("content", word)
        return text

    async def handler(job):
        said = await job.step("say", speak, job, "abc", inputs="abc")
        if job.attempt == 1:
            raise ValueError("after the step")
        said += await job.step("more", speak, job, "def", inputs="def")
        return said

    async with work(handler):
        job = await queue.add("n", attempts=2)
        chunks = await read(job.stream())
        assert kept_text(chunks) == await job.result(timeout=5) == "abcdef"


async def test_job_cancelled_while_it_waits_ends_once_with_its_stream(queue, work):
    async def handler(job):
        await job.stream_chunk("content", "before")
        await asyncio.gather(job.wait_for_signal("a"), job.sleep(60))

    async with work(handler):
        job = await queue.add("n")
        await until_counted(queue, suspended=1)
        assert await job.cancel() == "cancelled"
        chunks = await read(job.stream())
    assert [chunk.type for chunk in chunks] == ["content", "end"]
    assert chunks[-1].content == "cancelled"


async def test_cancel_while_a_park_waits_for_a_step_cancels_the_step_too(queue, work):
    how = []

    async def side():
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            how.append("cancelled")
            raise

    async def handler(job):
        how.append("begun")
        await asyncio.gather(job.wait_for_signal("a"), job.step("side", side))

    async with work(handler):
        job = await queue.add("n")
        await eventually(lambda: how == ["begun"])
        assert await job.cancel() == "requested"
        with pytest.raises(JobFailed):
            await job.result(timeout=5)
        assert (await job.snapshot()).state == "cancelled"
    assert how == ["begun", "cancelled"]


async def test_unrecoverable_error_after_a_wait_is_one_attempt(queue, work):
    async def handler(job):
        await job.wait_for_signal("go", timeout=0.05)

    async def stops(job):
        try:
            await handler(job)
        except Exception as error:
            raise UnrecoverableError("no") from error

    async with work(stops):
        job = await queue.add("n", attempts=5)
        with pytest.raises(JobFailed) as caught:
            await job.result(timeout=5)
    assert (caught.value.reason, caught.value.attempt) == ("unrecoverable", 1)
