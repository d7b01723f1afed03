"""Adding jobs: what goes in comes out, once; what can't go in leaves no trace."""

import asyncio
import math
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta

import pytest

from glidemq_core import Backoff, InvalidOption, Keep, NewJob, PayloadTooLarge, Queue, Worker

MIB = 1_048_576
NAN = math.nan


async def echo(job):
    return job.data


@pytest.mark.parametrize(
    "data",
    [
        {"a": "ü\x00😀", "\x00": "\u2028"},
        [1, [2, [3, {}]], []],
        "",
        0,
        False,
        None,
        {"big": 2**60, "small": -(2**60), "float": 0.1, "huge": 1e308, "null": None},
    ],
    ids=repr,
)
async def test_data_and_result_come_out_as_they_went_in(queue, work, data):
    async with work(echo):
        job = await queue.add("n", data)

        assert await job.result(timeout=5) == data
        assert (await job.snapshot()).data == data


async def test_data_of_a_mebibyte_is_the_largest(queue, any_server):
    with pytest.raises(PayloadTooLarge) as refused:
        await queue.add("n", "x" * (MIB - 1))
    assert (refused.value.size, refused.value.limit, refused.value.field) == (MIB + 1, MIB, "data")
    assert any_server.keys() == []

    job = await queue.add("n", "x" * (MIB - 2))
    assert len((await job.snapshot()).data) == MIB - 2


async def test_second_add_of_an_id_is_a_duplicate_and_changes_nothing(queue):
    first = await queue.add("n", "first", job_id="mine")
    second = await queue.add("other", "second", job_id="mine", delay=5, priority=1)

    assert (first.is_duplicate, second.is_duplicate, second.id) == (False, True, "mine")
    job = await second.snapshot()
    assert (job.name, job.data, job.state, job.priority) == ("n", "first", "waiting", 1000)


async def test_finished_job_keeps_its_id_and_a_removed_one_frees_it(queue, work):
    async with work(echo):
        await (await queue.add("n", 1, job_id="mine")).result(timeout=5)
        assert (await queue.add("n", 2, job_id="mine")).is_duplicate
        await queue.remove("mine")
        again = await queue.add("n", 3, job_id="mine")

        assert not again.is_duplicate
        assert await again.result(timeout=5) == 3


async def test_bulk_answers_each_input_in_order_and_leaves_duplicates_out(queue):
    ids = [f"j{i % 990}" for i in range(1000)]

    handles = await queue.add_many(NewJob(name="n", data=i, job_id=id) for i, id in enumerate(ids))

    assert [handle.id for handle in handles] == ids
    assert [handle.is_duplicate for handle in handles] == [i >= 990 for i in range(1000)]
    assert (await queue.counts())["waiting"] == 990
    assert [job.data for job in await queue.jobs("waiting", limit=1000)] == list(range(990))


async def test_bulk_of_nothing_answers_nothing(queue):
    assert await queue.add_many([]) == []


async def test_twenty_producers_of_one_id_make_one_job(queue, any_url):
    async with AsyncExitStack() as stack:
        # Adds of one Queue share a call; these are twenty.
        producers = [
            await stack.enter_async_context(Queue(queue.name, connection=any_url))
            for _ in range(20)
        ]
        handles = await asyncio.gather(
            *(one.add("n", i, job_id="one") for i, one in enumerate(producers))
        )
    (first,) = [i for i, handle in enumerate(handles) if not handle.is_duplicate]
    (job,) = await queue.jobs("waiting")

    assert (job.id, job.data) == ("one", first)


async def test_adds_of_one_id_at_one_time_make_one_job(queue):
    handles = await asyncio.gather(*(queue.add("n", i, job_id="one") for i in range(20)))

    assert sum(not handle.is_duplicate for handle in handles) == 1
    assert (await queue.counts())["waiting"] == 1


BAD_NAMES = ["a:b", "a{b}", "}", "a\nb", "a\x00b", "a b", "x" * 257, "", "\ud800", 7, b"a"]
BAD_OPTIONS = [
    *(("job_id", value) for value in BAD_NAMES),
    *(("name", value) for value in [*BAD_NAMES, None]),
    *(("priority", value) for value in [-1, 1.5, 2049, "1", True, NAN, None]),
    *(("attempts", value) for value in [-1, 0, 1.5, True, NAN, "3", None]),
    *(
        ("delay", value)
        for value in [NAN, math.inf, -1, "1", True, None, timedelta(seconds=-1), 1e15]
    ),
    *(("backoff", value) for value in [NAN, -1, math.inf, True, object()]),
    *(("timeout", value) for value in [0, -1, NAN, "1", True]),
    *(("idle_timeout", value) for value in [0, NAN]),
    *(("lock_duration", value) for value in [0, 0.01, 86_401, NAN]),
    *(("ttl", value) for value in [0, -1, NAN, math.inf]),
    *(
        ("data", value)
        for value in [NAN, [{"a": math.inf}], object(), {"a": {1: object()}}, "\ud800"]
    ),
    *(("lifo", value) for value in [1, "yes", None]),
    *(
        ("remove_on_complete", value)
        for value in [-1, "yes", 1.5, NAN, Keep(count=-1), Keep(age=NAN)]
    ),
    *(("remove_on_fail", value) for value in [-1, Keep(count=1.5), Keep(age=-1)]),
    *(
        ("fallbacks", value)
        for value in [[{}], [{"model": ""}], ["m"], "m", [{"model": "m", "modle": 1}], 5]
    ),
]


@pytest.mark.parametrize(
    ("field", "value"), BAD_OPTIONS, ids=lambda value: repr(value).partition(" at 0x")[0][:30]
)
async def test_bad_option_is_named_and_leaves_no_key(url, server, queue_name, field, value):
    good = {"name": "n"}
    async with Queue(queue_name, connection=url) as queue:
        with pytest.raises(InvalidOption) as refused:
            await queue.add(**{**good, field: value})
        assert refused.value.field.partition(".")[0].partition("[")[0] == field

        jobs = [NewJob(**good), NewJob(**{**good, field: value}), NewJob(**good)]
        with pytest.raises(InvalidOption) as refused:
            await queue.add_many(jobs)
        assert refused.value.field.startswith(f"jobs[1].{field}")
    assert server.keys() == []


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("type", ""),
        ("delay", NAN),
        ("max_delay", -1),
        ("jitter", 1.1),
        ("jitter", NAN),
        ("jitter", "0"),
    ],
)
def test_bad_backoff_is_refused_where_it_is_made(field, value):
    with pytest.raises(InvalidOption) as refused:
        Backoff(**{field: value})
    assert refused.value.field == f"backoff.{field}"


async def test_unknown_option_is_named(url, server, queue_name):
    async with Queue(queue_name, connection=url) as queue:
        with pytest.raises(TypeError, match="prioritty"):
            await queue.add("n", prioritty=1)
    assert server.keys() == []


@pytest.mark.parametrize("jobs", [[{"name": "n"}], [None], ["n"]])
async def test_bulk_of_something_else_is_named(url, server, queue_name, jobs):
    async with Queue(queue_name, connection=url) as queue:
        with pytest.raises(InvalidOption) as refused:
            await queue.add_many(jobs)
    assert refused.value.field == "jobs[0]"
    assert server.keys() == []


@pytest.mark.parametrize("name", BAD_NAMES, ids=repr)
def test_bad_queue_name_is_refused_by_queue_and_worker(name):
    with pytest.raises(InvalidOption):
        Queue(name)
    with pytest.raises(InvalidOption):
        Worker(name, echo)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("concurrency", value) for value in [0, -1, 1.5, True, 10_001]),
        *(("lock_duration", value) for value in [0, 0.05, NAN, 86_401, "30"]),
        *(("max_stalled", value) for value in [-1, 1.5, 1001]),
        *(("grace", value) for value in [-1, NAN]),
        ("max_loop_stall", 0),
        *(("remove_on_complete", value) for value in [-1, "yes"]),
        ("name", "a:b"),
        *(("handler", value) for value in [None, {}, {"n": 5}]),
    ],
    ids=repr,
)
def test_bad_worker_option_is_named(field, value):
    with pytest.raises(InvalidOption) as refused:
        Worker("q", **{"handler": echo, field: value})
    assert refused.value.field.partition("[")[0].partition(".")[0] == field


@pytest.mark.parametrize(
    ("call", "field"),
    [
        (lambda queue: queue.get("a{b}"), "id"),
        (lambda queue: queue.cancel(""), "id"),
        (lambda queue: queue.remove("a:b"), "id"),
        (lambda queue: queue.retry("a\n"), "id"),
        (lambda queue: queue.promote(7), "id"),
        (lambda queue: queue.log("j", start=-1), "start"),
        (lambda queue: queue.log("j", limit=0), "limit"),
        (lambda queue: queue.result("a b"), "id"),
        (lambda queue: queue.result("j", timeout=NAN), "timeout"),
        (lambda queue: queue.result("j", timeout=-1), "timeout"),
        (lambda queue: queue.read_stream("j", limit=0), "limit"),
        (lambda queue: queue.read_stream("j", after="soon"), "after"),
        (lambda queue: queue.read_stream("j", block=NAN), "block"),
        (lambda queue: queue.jobs("done"), "state"),
        (lambda queue: queue.jobs("suspects"), "state"),
        (lambda queue: queue.jobs("waiting", start=-1), "start"),
        (lambda queue: queue.jobs("waiting", limit=1001), "limit"),
        (lambda queue: queue.usage_summary(window=0), "window"),
        (lambda queue: queue.usage_summary(window=NAN), "window"),
        (lambda queue: queue.usage_summary(window=timedelta(days=32)), "window"),
        (lambda queue: queue.usage_summary(window=60, end=datetime.now(UTC)), "window"),
        (lambda queue: queue.usage_summary(start=datetime(2026, 1, 1)), "start"),  # noqa: DTZ001 that is what is wrong
        (lambda queue: queue.usage_summary(start=datetime(2026, 1, 1, tzinfo=UTC)), "start"),
        (lambda queue: queue.usage_summary(start=datetime.now(UTC) + timedelta(days=1)), "end"),
        (lambda queue: queue.usage_summary(queues=["a:b"]), "queues"),
        (lambda queue: anext(queue.stream("j", after="soon")), "after"),
        (lambda queue: anext(queue.events(after="soon")), "after"),
    ],
)
async def test_bad_argument_of_a_call_is_named(queue, call, field):
    with pytest.raises(InvalidOption) as refused:
        await call(queue)
    assert refused.value.field == field


@pytest.mark.parametrize(
    ("call", "field"),
    [
        (lambda job: job.stream_chunk("end"), "type"),
        (lambda job: job.stream_chunk(""), "type"),
        (lambda job: job.stream_chunk("content", 5), "content"),
        (lambda job: job.stream_chunk("content", "x", extra=object()), "fields"),
        (lambda job: job.progress(object()), "progress"),
        (lambda job: job.progress(NAN), "progress"),
        (lambda job: job.log(5), "text"),
        (lambda job: job.update_data("x" * MIB), "data"),
        (lambda job: job.report_usage(model="m", tokens={"input": -1}), "tokens['input']"),
        (lambda job: job.report_usage(model="m", tokens={"input": 1.5}), "tokens['input']"),
        (lambda job: job.report_usage(model="m", tokens={"input": 2**53}), "tokens['input']"),
        (
            lambda job: job.report_usage(model="m", tokens={}, costs={"total": NAN}),
            "costs['total']",
        ),
        (lambda job: job.report_usage(model="m", tokens={}, costs={"total": -1}), "costs['total']"),
        (lambda job: job.report_usage(model=5, tokens={}), "model"),
        (lambda job: job.report_usage(model="", tokens={}), "model"),
    ],
)
async def test_bad_argument_in_a_handler_is_named_and_writes_nothing(queue, work, call, field):
    async def handler(job):
        with pytest.raises(InvalidOption) as refused:
            await call(job)
        return refused.value.field

    async with work(handler):
        job = await queue.add("n")
        assert await job.result(timeout=5) == field
    found = await job.snapshot()
    assert (found.usage.total_tokens, found.progress, await queue.log(job.id)) == (0, None, [])
    assert [chunk.type for chunk in await queue.read_stream(job.id)] == ["end"]


@pytest.mark.parametrize(
    "result", [object(), NAN, {"a": {1: object()}}, "x" * MIB], ids=lambda v: repr(v)[:20]
)
async def test_result_that_is_no_json_fails_the_job_with_a_clear_error(queue, work, result):
    async def handler(job):
        return result

    async with work(handler):
        job = await queue.add("n")
        async for _ in job.stream():
            pass
    found = await job.snapshot()
    assert (found.state, found.error.error_class.rpartition(".")[2][:14]) in [
        ("failed", "InvalidOption"),
        ("failed", "PayloadTooLarg"),
    ]


async def test_half_a_surrogate_pair_in_chunks_and_logs_does_not_stop_the_job(queue, work):
    async def handler(job):
        await job.stream_chunk("content", "a\ud83db")
        await job.log("a\ud83db")
        return "done"

    async with work(handler):
        job = await queue.add("n")
        assert await job.result(timeout=5) == "done"
    assert [chunk.content for chunk in await queue.read_stream(job.id)] == ["a\ufffdb", "completed"]
    assert await queue.log(job.id) == ["a\ufffdb"]
