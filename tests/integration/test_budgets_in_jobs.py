"""Budgets of jobs: what a cap lets through, what it refuses, what it parks, and what wakes the parked."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from glidemq_core import (
    Budget,
    FlowJob,
    FlowProducer,
    InvalidOption,
    JobFailed,
    JobHandle,
    NewJob,
    Queue,
    Worker,
)
from glidemq_core.ledger import Ledger
from tests.harness.jobs import until_counted
from tests.harness.processes import eventually
from tests.harness.servers import Look


@pytest.fixture
async def ledger(any_url: str) -> AsyncIterator[Ledger]:
    async with Ledger(connection=any_url) as opened:
        yield opened


async def spend(job: Any) -> int:
    """{ask, use?}: one call."""
    async with job.llm_call("m", tokens={"input": job.data["ask"]}) as call:
        call.tokens = {"input": job.data.get("use", job.data["ask"])}
    return call.tokens["input"]


async def gathered(jobs: list[JobHandle]) -> list[Any]:
    return await asyncio.gather(*(job.result(timeout=20) for job in jobs), return_exceptions=True)


async def until_parked(queue: Queue, count: int) -> None:
    """Wait until so many jobs are delayed, and none is on its way."""
    await until_counted(queue, delayed=count, waiting=0, active=0)


async def used(ledger: Ledger, id: str = "b") -> int:
    state = await ledger.budget(id)
    assert state is not None
    assert state.reserved == {}
    return state.total_tokens


async def test_no_more_jobs_spend_than_the_cap_has_room_for(
    queue: Queue, work: Callable[..., Worker], ledger: Ledger
):
    await ledger.open_budget("b", Budget(max_total_tokens=100_000))
    jobs = await queue.add_many(
        [NewJob(name="j", data={"ask": 10_000}, budgets=["b"]) for _ in range(50)]
    )

    async with work(spend, concurrency=50):
        ends = await gathered(jobs)

    assert [end for end in ends if isinstance(end, int)] == [10_000] * 10
    assert [end.reason for end in ends if isinstance(end, JobFailed)] == ["budget"] * 40
    assert await used(ledger) == 100_000


async def test_refused_job_fails_at_once_and_says_why(
    queue: Queue, work: Callable[..., Worker], ledger: Ledger
):
    await ledger.open_budget("b", Budget(max_total_tokens=100))

    async with work(spend):
        job = await queue.add("j", {"ask": 101}, budgets=["b"], attempts=5, backoff=60)
        with pytest.raises(JobFailed) as caught:
            await job.result(timeout=10)

    snapshot = await job.snapshot()
    assert snapshot is not None
    assert (snapshot.attempt, snapshot.run) == (1, 1)
    assert caught.value.reason == "budget"
    assert caught.value.error_class.endswith("BudgetExceeded")
    for fact in ("'b'", "total_tokens", "100", "101"):
        assert fact in caught.value.error_message


async def test_use_above_the_estimate_is_counted_and_stops_the_next(
    queue: Queue, work: Callable[..., Worker], ledger: Ledger
):
    await ledger.open_budget("b", Budget(max_total_tokens=100))

    async with work(spend):
        first = await queue.add("j", {"ask": 10, "use": 130}, budgets=["b"])
        assert await first.result(timeout=10) == 130
        second = await queue.add("j", {"ask": 1}, budgets=["b"])
        with pytest.raises(JobFailed):
            await second.result(timeout=10)

    assert await used(ledger) == 130


async def test_what_a_call_did_not_use_goes_to_the_jobs_that_wait(
    queue: Queue, work: Callable[..., Worker], ledger: Ledger
):
    await ledger.open_budget("b", Budget(max_total_tokens=100, on_exceeded="pause"))
    jobs = [
        await queue.add("j", {"ask": 90, "use": 5}, budgets=["b"], attempts=1) for _ in range(3)
    ]

    async with work(spend, concurrency=3):
        assert await gathered(jobs) == [5, 5, 5]

    assert await used(ledger) == 15
    assert [(await job.snapshot()).attempt for job in jobs] == [1, 1, 1]  # type: ignore[union-attr]


async def test_parked_jobs_wait_without_a_call_until_the_cap_is_raised(
    queue: Queue, work: Callable[..., Worker], ledger: Ledger, any_server: Look
):
    budget = Budget(max_total_tokens=10, on_exceeded="pause")
    await ledger.open_budget("b", budget)
    jobs = await queue.add_many(
        [NewJob(name="j", data={"ask": 10}, budgets=["b"], attempts=1) for _ in range(301)]
    )

    async with work(spend, concurrency=50):
        await until_parked(queue, 300)
        await asyncio.sleep(1.1)  # the last round of upkeep that has news
        before, runs = any_server.calls("fcall"), [(await job.snapshot()).run for job in jobs]  # type: ignore[union-attr]
        reads = any_server.calls("fcall") - before
        await asyncio.sleep(1)
        idle = any_server.calls("fcall") - before - reads

        await ledger.update_budget("b", Budget(max_total_tokens=10_000, on_exceeded="pause"))
        assert await gathered(jobs) == [10] * 301

    # A round of upkeep, and what a worker without jobs asks in a second.
    assert idle <= 20
    assert sorted(set(runs)) == [1]
    ended = [await job.snapshot() for job in jobs]
    assert {(job.attempt, job.state) for job in ended if job} == {(1, "completed")}
    assert await used(ledger) == 3010


async def test_parked_jobs_run_when_the_window_turns(
    queue: Queue, work: Callable[..., Worker], ledger: Ledger
):
    daily = Budget(max_total_tokens=10, on_exceeded="pause", window="day")
    client = await ledger._open()
    now = (await client._get([], []))[0]
    # A window that began a moment before today's, and ends soon.
    args = {
        "id": "b",
        "caps": daily.caps(),
        "weights": {},
        "on": "pause",
        "unit": "usd",
        "window": "day",
        "zone": "UTC",
        "start": now - now % 86_400_000 - 1,
        "stop": now + 1500,
        "update": False,
    }
    await client._call("ledger_open", args)

    async with work(spend, concurrency=2):
        jobs = [await queue.add("j", {"ask": 10}, budgets=["b"]) for _ in range(2)]
        await until_parked(queue, 1)
        assert await gathered(jobs) == [10, 10]

    state = await ledger.budget("b")
    assert state is not None
    assert state.total_tokens == 10
    assert time.time() * 1000 >= now + 1500


async def test_job_waits_for_all_of_its_budgets_and_holds_none_meanwhile(
    queue: Queue, work: Callable[..., Worker], ledger: Ledger
):
    for id in ("user", "tenant"):
        await ledger.open_budget(id, Budget(max_total_tokens=5, on_exceeded="pause"))

    async with work(spend):
        job = await queue.add("j", {"ask": 10}, budgets=["user", "tenant"])
        await until_parked(queue, 1)
        await ledger.update_budget("user", Budget(max_total_tokens=50, on_exceeded="pause"))

        async def waits_for_the_other() -> int:
            return (await ledger.budget("tenant")).waiting  # type: ignore[union-attr]

        await eventually(waits_for_the_other)
        assert (await ledger.budget("user")).reserved == {}  # type: ignore[union-attr]
        await ledger.update_budget("tenant", Budget(max_total_tokens=50, on_exceeded="pause"))
        assert await job.result(timeout=10) == 10

    assert (await used(ledger, "user"), await used(ledger, "tenant")) == (10, 10)


async def test_one_budget_holds_for_several_queues_and_many_jobs_at_once(
    queue: Queue, other: Queue, work: Callable[..., Worker], ledger: Ledger, any_url: str
):
    await ledger.open_budget("b", Budget(max_total_tokens=100))
    async with (
        work(spend, concurrency=20),
        Worker(other.name, spend, connection=any_url, concurrency=20),
    ):
        jobs: list[JobHandle] = []
        for one in (queue, other):
            jobs += await one.add_many(
                [NewJob(name="j", data={"ask": 10}, budgets=["b"]) for _ in range(10)]
            )
        ends = await gathered(jobs)

    assert len([end for end in ends if isinstance(end, int)]) == 10
    assert await used(ledger) == 100


async def test_budget_of_a_flow_holds_for_all_its_jobs_and_their_children(
    queue: Queue, other: Queue, work: Callable[..., Worker], any_url: str
):
    async def parent(job: Any) -> int:
        for one in (queue, other):
            await job.add_child("more", {"ask": 30}, queue=one.name, on_failure="collect")
        ends = await job.wait_for_children()
        return sum(end.state == "completed" for end in ends.values())

    async with (
        FlowProducer(any_url) as flows,
        work({"leaf": spend, "more": spend, "parent": parent}, concurrency=1),
        Worker(other.name, spend, connection=any_url),
    ):
        leaves = [FlowJob(name="leaf", queue=one.name, data={"ask": 20}) for one in (queue, other)]
        flow = FlowJob(name="parent", queue=queue.name, children=leaves, on_child_failure="collect")
        handle = await flows.add(flow, budget=Budget(max_total_tokens=80))
        done = await queue.result(handle.id, timeout=20)

    state = await queue.budget(handle.id)
    assert state is not None
    assert (done, state.total_tokens, state.reserved) == (3, 70, {})


async def test_budget_of_a_graph_holds_for_all_its_jobs(
    queue: Queue, work: Callable[..., Worker], any_url: str
):
    nodes = {
        str(number): FlowJob(
            name="leaf", queue=queue.name, data={"ask": 10}, on_child_failure="ignore"
        )
        for number in range(4)
    }
    edges = {"3": ["0", "1", "2"]}

    async with FlowProducer(any_url) as flows, work(spend, concurrency=4):
        handles = await flows.add_dag(nodes, edges, budget=Budget(max_total_tokens=25))
        with pytest.raises(JobFailed):
            await queue.result(handles["3"].id, timeout=20)

    state = await queue.budget(handles["3"].id)
    assert state is not None
    assert state.total_tokens == 20


async def test_job_with_an_estimate_does_not_start_before_there_is_room(
    queue: Queue, work: Callable[..., Worker], ledger: Ledger
):
    await ledger.open_budget("b", Budget(max_total_tokens=50, on_exceeded="pause"))
    started: list[str] = []

    async def handler(job: Any) -> int:
        started.append(job.id)
        return await spend(job)

    async with work(handler):
        job = await queue.add("j", {"ask": 10}, budgets=["b"], estimate={"tokens": 100})
        await until_parked(queue, 1)
        seen = list(started)
        await ledger.update_budget("b", Budget(max_total_tokens=100, on_exceeded="pause"))
        assert await job.result(timeout=10) == 10

    assert (seen, started) == ([], [job.id])
    assert await used(ledger) == 10


async def test_estimate_of_a_job_that_calls_nothing_is_given_back(
    queue: Queue, work: Callable[..., Worker], ledger: Ledger
):
    await ledger.open_budget("b", Budget(max_total_tokens=50))
    held: list[Any] = []

    async def handler(job: Any) -> None:
        held.append((await job.budget.state()).reserved)

    async with work(handler):
        job = await queue.add("j", budgets=["b"], estimate={"tokens": 40})
        await job.result(timeout=10)

    assert held[0]["total_tokens"] == 40
    assert await used(ledger) == 0


async def test_handler_in_a_thread_is_told_that_the_budget_has_no_room(
    queue: Queue, work: Callable[..., Worker], ledger: Ledger
):
    await ledger.open_budget("b", Budget(max_total_tokens=50, on_exceeded="pause"))

    def handler(job: Any) -> None:
        job.reserve(job.next_call_id(), tokens={"input": 100})

    async with work(handler):
        job = await queue.add("j", budgets=["b"], attempts=3)
        with pytest.raises(JobFailed) as caught:
            await job.result(timeout=10)

    assert caught.value.reason == "budget"
    assert (await job.snapshot()).attempt == 1  # type: ignore[union-attr]


async def test_caps_tell_at_50_80_and_100_percent_once_each(
    queue: Queue, work: Callable[..., Worker], ledger: Ledger
):
    await ledger.open_budget("b", Budget(max_total_tokens=100))

    async with work(spend):
        for _ in range(10):
            job = await queue.add("j", {"ask": 10}, budgets=["b"])
            await job.result(timeout=10)

    alerts = await ledger.alerts()
    told = [(one.cap, one.percent, int(one.used)) for one in reversed(alerts)]
    assert told == [
        (("total_tokens"), 50, 50),
        ("total_tokens", 80, 80),
        ("total_tokens", 100, 100),
    ]


async def test_usage_told_without_a_reservation_counts_and_stops_the_next(
    queue: Queue, work: Callable[..., Worker], ledger: Ledger
):
    await ledger.open_budget("b", Budget(max_total_tokens=100))

    async def tell(job: Any) -> None:
        await job.report_usage(model="m", tokens={"input": 100})

    async with work({"tell": tell, "j": spend}):
        await (await queue.add("tell", budgets=["b"])).result(timeout=10)
        with pytest.raises(JobFailed):
            await (await queue.add("j", {"ask": 1}, budgets=["b"])).result(timeout=10)

    assert await used(ledger) == 100


async def test_budget_nobody_opened_fails_the_job_and_says_so(
    queue: Queue, work: Callable[..., Worker]
):
    async with work(spend):
        job = await queue.add("j", {"ask": 1}, budgets=["nobody"], attempts=3)
        with pytest.raises(JobFailed, match="nobody"):
            await job.result(timeout=10)


async def test_budget_may_be_called_what_its_owner_is(
    queue: Queue, work: Callable[..., Worker], ledger: Ledger
):
    name = "tenant:{a b}/ü"
    await ledger.open_budget(name, Budget(max_total_tokens=5, on_exceeded="pause"))

    async with work(spend):
        job = await queue.add("j", {"ask": 10}, budgets=[name])
        await until_parked(queue, 1)
        await ledger.update_budget(name, Budget(max_total_tokens=10, on_exceeded="pause"))
        assert await job.result(timeout=10) == 10

    assert await used(ledger, name) == 10


async def test_step_whose_call_has_no_room_is_parked_with_its_job_and_runs_when_there_is(
    queue: Queue, work: Callable[..., Worker], ledger: Ledger
):
    await ledger.open_budget("b", Budget(max_total_tokens=10, on_exceeded="pause"))
    begun: list[str] = []

    async def twice(job: Any) -> list[int]:
        async def step(name: str) -> int:
            begun.append(name)
            return await spend(job)

        return [await job.step(name, step, name, paid=True) for name in ("one", "two")]

    async with work(twice, concurrency=1):
        job = await queue.add("j", {"ask": 10}, budgets=["b"], attempts=1)
        await until_parked(queue, 1)
        assert begun == ["one", "two"]
        await ledger.update_budget("b", Budget(max_total_tokens=20, on_exceeded="pause"))
        assert await job.result(timeout=10) == [10, 10]

    assert begun == ["one", "two", "two"]
    assert await used(ledger) == 20


async def test_job_and_bulk_add_can_have_budgets_of_their_own(
    queue: Queue, work: Callable[..., Worker]
):
    new = [
        NewJob(name="j", data={"ask": ask}, budget=Budget(max_total_tokens=50)) for ask in (40, 60)
    ]
    async with work(spend, concurrency=3):
        one = await queue.add("j", {"ask": 40}, budget=Budget(max_total_tokens=50))
        jobs = [one, *await queue.add_many(new)]
        ends = await gathered(jobs)

    states = [await queue.get_flow_budget(job.id) for job in jobs]
    assert [end for end in ends if isinstance(end, int)] == [40, 40]
    assert isinstance(ends[2], JobFailed)
    assert [state.total_tokens for state in states if state] == [40, 40, 0]


async def test_duplicate_opens_no_budget_that_stays(queue: Queue, ledger: Ledger):
    budget = Budget(max_total_tokens=5)
    await queue.add("j", job_id="x", budget=budget)
    again = await queue.add("j", job_id="x", budget=Budget(max_total_tokens=7))

    state = await queue.get_flow_budget("x")
    assert again.is_duplicate
    assert state is not None
    assert state.caps["total_tokens"].limit == 5
    root = "glidemq:{ledger:main}"
    client = (await ledger._open())._client

    async def only_one_is_left() -> bool:
        return len(await client.command("KEYS", f"{root}:budget:job-*", near=root)) == 1

    await eventually(only_one_is_left)


async def test_raised_budget_of_a_flow_lets_its_parked_jobs_go_on(
    queue: Queue, work: Callable[..., Worker], any_url: str
):
    async with FlowProducer(any_url) as flows, work(spend):
        handle = await flows.add(
            FlowJob(name="j", queue=queue.name, data={"ask": 10}),
            budget=Budget(max_total_tokens=5, on_exceeded="pause"),
        )
        await until_parked(queue, 1)
        raised = Budget(max_total_tokens=10, on_exceeded="pause")
        state = await queue.update_flow_budget(handle.id, raised)
        assert await queue.result(handle.id, timeout=10) == 10

    assert state.caps["total_tokens"].limit == 10
    with pytest.raises(InvalidOption, match="neither"):
        await queue.update_flow_budget((await queue.add("j")).id, raised)
    assert await queue.get_flow_budget("unknown") is None


@pytest.mark.parametrize("kind", ["async", "thread"])
async def test_agent_that_asks_is_told_and_what_it_holds_ends_with_its_run(
    queue: Queue, work: Callable[..., Worker], ledger: Ledger, kind: str
):
    await ledger.open_budget("b", Budget(max_total_tokens=100, on_exceeded="pause"))

    async def handler(job: Any) -> list[Any]:
        first = await job.budget.try_reserve(60)
        second = await job.budget.try_reserve({"output": 60})
        left = (await job.budget.state()).remaining["total_tokens"]
        await first.release()
        third = await job.budget.try_reserve(100)
        return [first is not None, second is not None, int(left), third is not None]

    def threaded(job: Any) -> list[Any]:
        first = job.budget.try_reserve(60)
        second = job.budget.try_reserve({"output": 60})
        left = job.budget.state().remaining["total_tokens"]
        first.release()
        third = job.budget.try_reserve(100)
        return [first is not None, second is not None, int(left), third is not None]

    async with work(handler if kind == "async" else threaded):
        job = await queue.add("j", budgets=["b"])
        assert await job.result(timeout=10) == [True, False, 40, True]

    assert await used(ledger) == 0
