"""Usage adds up: calls of a job, runs of a job, jobs of a flow, also those that failed or were removed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from glidemq_core import FlowJob, FlowProducer, JobFailed, Queue, Worker
from tests.harness.processes import eventually


async def test_ten_reports_of_which_one_is_repeated_add_up_once_each(
    queue: Queue, work: Callable[..., Worker]
):
    answers: list[bool] = []

    async def handler(job: Any) -> None:
        async def report(number: int) -> bool:
            return await job.report_usage(
                model="m",
                tokens={"input": 10, "output": number},
                costs={"total": "0.1"},
                call=f"call-{number % 9}",
            )

        answers.extend([await report(number) for number in range(10)])

    async with work(handler):
        job = await queue.add("j")
        await job.result(timeout=10)

    usage = (await job.snapshot()).usage  # type: ignore[union-attr]
    assert answers == [True] * 9 + [False]
    assert usage.tokens == {"input": 90, "output": 36}
    assert usage.total_cost == Decimal("0.9")
    assert len(usage.calls) == 9


async def test_failed_attempts_count(queue: Queue, work: Callable[..., Worker]):
    async def handler(job: Any) -> None:
        async with job.llm_call("m", tokens={"input": 10}) as call:
            call.tokens = {"input": job.attempt}
        if job.attempt < 3:
            raise ConnectionError

    async with work(handler):
        job = await queue.add("j", attempts=3, backoff=0.001)
        await job.result(timeout=10)

    usage = (await job.snapshot()).usage  # type: ignore[union-attr]
    assert usage.total_tokens == 1 + 2 + 3
    assert [call["attempt"] for call in usage.calls] == [1, 2, 3]


async def test_call_that_raises_is_booked_with_its_estimate_and_flagged(
    queue: Queue, work: Callable[..., Worker]
):
    async def handler(job: Any) -> None:
        async with job.llm_call("m", tokens={"input": 10}):
            raise ConnectionError

    async with work(handler):
        job = await queue.add("j")
        with pytest.raises(JobFailed):
            await job.result(timeout=10)

    (call,) = (await job.snapshot()).usage.calls  # type: ignore[union-attr]
    assert (call["status"], call["tokens"]) == ("missing", {"input": 10})


async def test_flow_total_has_grandchildren_failed_and_removed_children(
    queue: Queue, other: Queue, work: Callable[..., Worker], any_url: str
):
    async def handler(job: Any) -> None:
        await job.report_usage(model="m", tokens={"input": job.data})
        if job.name == "broken":
            raise ConnectionError

    def leaf(name: str, tokens: int) -> FlowJob:
        options = {"remove_on_complete": True} if name == "removed" else {}
        return FlowJob(name=name, queue=other.name, data=tokens, options=options)

    middle = FlowJob(
        name="middle", queue=queue.name, data=10, children=[leaf("removed", 100), leaf("leaf", 200)]
    )
    flow = FlowJob(
        name="top",
        queue=queue.name,
        data=1,
        children=[middle, leaf("broken", 1000)],
        on_child_failure="ignore",
    )
    async with (
        FlowProducer(any_url) as flows,
        work(handler, concurrency=3),
        Worker(other.name, handler, connection=any_url, concurrency=3),
    ):
        handle = await flows.add(flow)
        await queue.result(handle.id, timeout=20)
        total = await queue.flow_usage(handle.id)

    removed = handle.children["middle"].children["removed"].id
    assert await other.get(removed) is None
    assert total.total_tokens == 1311


@pytest.mark.parametrize("end", ["cancelled", "failed"])
async def test_flow_total_has_what_children_use_after_their_parents_end(
    queue: Queue, other: Queue, work: Callable[..., Worker], any_url: str, end: str
):
    spending, let_fail = asyncio.Event(), asyncio.Event()

    async def spender(job: Any) -> None:
        async with job.llm_call("m", tokens={"input": 100}) as call:
            spending.set()
            while (await queue.counts())[end] < 2:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            call.tokens = {"input": 100}

    async def broken(_job: Any) -> None:
        await let_fail.wait()
        raise ConnectionError

    children = [FlowJob(name=name, queue=other.name) for name in ("spender", "broken")]
    middle = FlowJob(name="middle", queue=queue.name, children=children)
    handlers = {"spender": spender, "broken": broken}
    async with (
        FlowProducer(any_url) as flows,
        work(print),
        Worker(other.name, handlers, connection=any_url, concurrency=2),
    ):
        handle = await flows.add(FlowJob(name="top", queue=queue.name, children=[middle]))
        await spending.wait()
        if end == "cancelled":
            await queue.cancel(handle.id)
        else:
            let_fail.set()
        ids = [handle.id, handle.children["middle"].id]

        async def totals() -> bool:
            return [(await queue.flow_usage(id)).total_tokens for id in ids] == [100, 100]

        await eventually(totals)

    assert (await queue.counts())[end] == 2


async def test_summary_of_a_queue_adds_up_by_model(queue: Queue, work: Callable[..., Worker]):
    async def handler(job: Any) -> None:
        await job.report_usage(model=job.data, tokens={"input": 7}, costs={"total": "0.000000001"})

    async with work(handler, concurrency=4):
        jobs = [await queue.add("j", model) for model in ("a", "b", "a", "a")]
        await asyncio.gather(*(job.result(timeout=10) for job in jobs))
        summary = await queue.usage_summary()

    assert summary.total_tokens == 28
    assert {name: one.total_tokens for name, one in summary.models.items()} == {"a": 21, "b": 7}
    assert summary.costs == {"total": Decimal("0.000000004")}
