"""A cluster of three primaries: a queue, its ledger and its children's queue on three different nodes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from glidemq_core import (
    Budget,
    FlowJob,
    FlowProducer,
    JobCancelled,
    JobFailed,
    NewJob,
    Queue,
    SignalTimeout,
    Worker,
    kept_text,
)
from glidemq_core.ledger import Ledger
from tests.harness.fsck import fsck
from tests.harness.jobs import read, until_state
from tests.harness.servers import Cluster

pytestmark = pytest.mark.faults


@pytest.fixture
def cluster(three_primaries: Cluster) -> Cluster:
    return three_primaries


@pytest.fixture
def names(cluster: Cluster) -> list[str]:
    """Names of three queues, each on a node of its own."""
    return cluster.names_apart(3)


@pytest.fixture
async def queues(cluster: Cluster, names: list[str]) -> AsyncIterator[list[Queue]]:
    opened = [Queue(name, connection=cluster.url) for name in names]
    yield opened
    for queue in opened:
        await queue.close()
        node = cluster.node_of(f"glidemq:{{{queue.name}}}")
        assert fsck(node, queue.name) == []


async def test_jobs_streams_and_results_of_three_nodes_at_once(cluster: Cluster, queues):
    async def handler(job):
        for i in range(50):
            await job.stream_chunk("content", f"{job.data}.{i} ")
        return "".join(f"{job.data}.{i} " for i in range(50))

    async with Workers(cluster, queues, handler):
        jobs = [
            job
            for queue in queues
            for job in await queue.add_many(NewJob(name="n", data=i) for i in range(20))
        ]
        seen = await asyncio.gather(*(read(job.stream()) for job in jobs))
        results = [await job.result(timeout=30) for job in jobs]
    assert [kept_text(chunks) for chunks in seen] == results


class Workers:
    """A worker per queue."""

    def __init__(self, cluster: Cluster, queues, handler, **options) -> None:
        options.setdefault("concurrency", 10)
        self._workers = [
            Worker(queue.name, handler, connection=cluster.url, **options) for queue in queues
        ]

    async def __aenter__(self) -> None:
        for worker in self._workers:
            await worker.__aenter__()

    async def __aexit__(self, *error) -> None:
        for worker in self._workers:
            await worker.__aexit__(*error)


async def leaf(job):
    await job.report_usage(model="m", tokens={"input": 10})
    if job.data == "bad":
        raise ValueError("bad")
    return job.data


async def parent(job):
    return {key: end.value for key, end in (await job.wait_for_children()).items()}


async def boss(job):
    for i in range(3):
        await job.add_child("leaf", i, queue=job.data)
    ends = await job.wait_for_children()
    return sorted(end.result for end in ends.values())


FAMILY = {"leaf": leaf, "parent": parent, "boss": boss}


async def test_graph_across_three_nodes_runs_each_node_once_in_order(cluster: Cluster, queues):
    a, b, c = queues
    flows = FlowProducer(connection=cluster.url)
    async with Workers(cluster, queues, FAMILY):
        handles = await flows.add_dag(
            {
                "start": FlowJob(name="leaf", queue=a.name, data="s"),
                "left": FlowJob(name="parent", queue=b.name),
                "right": FlowJob(name="parent", queue=c.name),
                "end": FlowJob(name="parent", queue=a.name),
            },
            {"left": ["start"], "right": ["start"], "end": ["left", "right"]},
        )
        result = await a.result(handles["end"].id, timeout=30)
    await flows.close()
    assert result == {"left": {"start": "s"}, "right": {"start": "s"}}
    home = {"start": a, "left": b, "right": c, "end": a}
    jobs = {name: await home[name].get(handle.id) for name, handle in handles.items()}
    assert [job.run for job in jobs.values()] == [1] * 4
    assert max(jobs["left"].finished_at, jobs["right"].finished_at) <= jobs["end"].started_at
    assert (await a.flow_usage(handles["end"].id)).tokens == {"input": 10}


async def test_children_and_cancellations_cross_nodes(cluster: Cluster, queues):
    a, b, c = queues
    flows = FlowProducer(connection=cluster.url)
    async with Workers(cluster, queues, FAMILY):
        job = await a.add("boss", b.name)
        assert await job.result(timeout=30) == [0, 1, 2]
        assert (await a.flow_usage(job.id)).tokens == {"input": 30}
        flow = await flows.add(
            FlowJob(
                name="parent",
                queue=a.name,
                children=[
                    FlowJob(
                        name="parent",
                        queue=b.name,
                        children=[FlowJob(name="leaf", queue=c.name, options={"delay": 100})],
                    )
                ],
            )
        )
        await a.cancel(flow.id)
        grandchild = flow.children["parent"].children["leaf"].id
        await until_state(c, grandchild, "cancelled")
        flow = await flows.add(
            FlowJob(
                name="parent",
                queue=a.name,
                children=[FlowJob(name="leaf", queue=b.name, data="bad")],
            )
        )
        with pytest.raises(JobFailed, match="child_failed"):
            await a.result(flow.id, timeout=30)
    await flows.close()


async def test_waits_steps_and_cancels_hold_on_every_node(cluster: Cluster, queues):
    bought = []

    async def buy(what):
        bought.append(what)
        return what

    async def handler(job):
        await job.stream_chunk("content", "a")
        await job.step("buy", buy, job.queue)
        try:
            signal = await job.wait_for_signal("go", timeout=job.data)
        except SignalTimeout:
            return "late"
        await job.stream_chunk("content", "b")
        return signal.data

    async with Workers(cluster, queues, handler):
        for queue in queues:
            job = await queue.add("n", 60)
            await until_state(queue, job.id, "suspended")
            await job.signal("go", queue.name)
            assert await job.result(timeout=30) == queue.name
            assert kept_text(await read(job.stream())) == "ab"
            late = await queue.add("n", 0.1)
            assert await late.result(timeout=30) == "late"
            gone = await queue.add("n", 60)
            await until_state(queue, gone.id, "suspended")
            await gone.cancel()
            with pytest.raises(JobCancelled):
                await gone.result(timeout=30)
    assert sorted(bought) == sorted(queue.name for queue in queues for _ in range(3))


async def test_one_budget_on_one_node_bounds_queues_on_the_others(
    cluster: Cluster, queues, names: list[str]
):
    home = cluster.node_of("glidemq:{ledger:main}").port
    others = [
        queue for queue in queues if cluster.node_of(f"glidemq:{{{queue.name}}}").port != home
    ]
    assert len(others) == 2

    async def spend(job):
        async with job.llm_call("m", tokens={"input": 100}) as call:
            call.tokens = {"input": 100}

    async with Ledger(connection=cluster.url) as ledger:
        await ledger.open_budget("shared", Budget(max_total_tokens=1000))
        async with Workers(cluster, others, spend):
            jobs = [
                job
                for queue in others
                for job in await queue.add_many(
                    NewJob(name="n", budgets=["shared"]) for _ in range(15)
                )
            ]
            ends = await asyncio.gather(
                *(job.result(timeout=30) for job in jobs), return_exceptions=True
            )
        state = await ledger.budget("shared")
    refused = [end for end in ends if isinstance(end, JobFailed)]
    assert len(refused) == 20
    assert {end.reason for end in refused} == {"budget"}
    assert not any(state.reserved.values())
