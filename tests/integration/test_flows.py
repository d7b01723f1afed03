"""Flows: parents after their children, what a child's end means, graphs, children added by running jobs."""

import asyncio

import pytest

from glidemq_core import (
    FlowJob,
    FlowProducer,
    InvalidOption,
    JobCancelled,
    JobFailed,
    Worker,
    kept_text,
)
from tests.harness.jobs import lose, until_counted, until_state
from tests.harness.processes import eventually


@pytest.fixture
async def flows(any_url):
    producer = FlowProducer(connection=any_url)
    yield producer
    await producer.close()


async def leaf(job):
    await job.report_usage(model="m", tokens={"input": 10}, costs={"total": "0.001"})
    if job.data == "bad":
        raise ValueError("bad leaf")
    return {"leaf": job.data}


async def parent(job):
    ends = await job.wait_for_children()
    return {key: end.value if end.state == "completed" else end.state for key, end in ends.items()}


HANDLERS = {"leaf": leaf, "parent": parent}


@pytest.fixture
async def leaves(other, any_url):
    """A worker for the other queue."""
    async with Worker(other.name, HANDLERS, connection=any_url, concurrency=5):
        yield


@pytest.fixture
async def both(leaves, work):
    """Workers for both queues."""
    async with work(HANDLERS, concurrency=5):
        yield


async def test_parent_runs_after_its_children_and_sees_their_results_by_key(
    queue, other, flows, both
):
    flow = await flows.add(
        FlowJob(
            name="parent",
            queue=queue.name,
            children=[
                FlowJob(name="leaf", queue=other.name, data=1),
                FlowJob(name="leaf", queue=queue.name, data=2),
                FlowJob(name="leaf", queue=other.name, data=3, key="third"),
            ],
        )
    )

    result = await queue.result(flow.id, timeout=10)

    assert result == {"leaf": {"leaf": 1}, "leaf#2": {"leaf": 2}, "third": {"leaf": 3}}
    top = await queue.get(flow.id)
    ends = [await q.get(flow.children[k].id) for q, k in ((other, "leaf"), (queue, "leaf#2"))]
    assert all(end.finished_at <= top.started_at for end in ends)
    assert top.run == 1  # not started before


async def test_three_generations_end_and_their_usage_adds_up(queue, other, flows, both):
    flow = await flows.add(
        FlowJob(
            name="parent",
            queue=queue.name,
            children=[
                FlowJob(
                    name="parent",
                    queue=other.name,
                    children=[FlowJob(name="leaf", queue=queue.name, data=i) for i in range(3)],
                ),
                FlowJob(name="leaf", queue=other.name, data=9),
            ],
        )
    )

    result = await queue.result(flow.id, timeout=10)

    assert result["parent"]["leaf#3"] == {"leaf": 2}
    usage = await queue.flow_usage(flow.id)
    assert usage.tokens == {"input": 40}
    assert str(usage.total_cost) == "0.004"


async def test_usage_of_failed_attempts_counts_in_the_flow(queue, other, flows, both):
    flow = await flows.add(
        FlowJob(
            name="parent",
            queue=queue.name,
            on_child_failure="ignore",
            children=[FlowJob(name="leaf", queue=other.name, data="bad", options={"attempts": 3})],
        )
    )
    await queue.result(flow.id, timeout=10)
    assert (await queue.flow_usage(flow.id)).tokens == {"input": 30}


@pytest.mark.parametrize(
    ("policy", "expected"),
    [("fail", None), ("ignore", {"leaf#2": 1}), ("collect", {"leaf": "failed", "leaf#2": 1})],
)
async def test_child_that_fails_for_good_means_what_the_policy_says(
    queue, other, flows, both, *, policy, expected
):
    flow = await flows.add(
        FlowJob(
            name="parent",
            queue=queue.name,
            on_child_failure=policy,
            children=[
                FlowJob(name="leaf", queue=other.name, data="bad"),
                FlowJob(name="leaf", queue=other.name, data=1),
            ],
        )
    )

    if expected is None:
        with pytest.raises(JobFailed) as caught:
            await queue.result(flow.id, timeout=10)
        assert caught.value.reason == "child_failed"
        assert (caught.value.error_class, caught.value.error_message) == (
            "ValueError",
            f"child 'leaf' ({flow.children['leaf'].id}) ended as failed: bad leaf",
        )
        return
    got = await queue.result(flow.id, timeout=10)
    wanted = {key: {"leaf": 1} if value == 1 else value for key, value in expected.items()}
    if policy == "ignore":
        got.pop("leaf", None)
    assert got == wanted


async def _cancel(queue, id):
    await queue.cancel(id)


async def _remove(queue, id):
    await queue.remove(id)


async def _expire(queue, id):
    """Its ttl does that."""


@pytest.mark.parametrize(
    ("end", "options", "state", "reason"),
    [
        (_cancel, {"delay": 100}, "cancelled", "cancelled"),
        (_remove, {"delay": 100}, "removed", "removed"),
        (_expire, {"delay": 100, "ttl": 0.05}, "failed", "expired"),
    ],
    ids=["cancelled", "removed", "expired"],
)
@pytest.mark.parametrize("policy", ["fail", "collect"])
async def test_child_that_ends_in_another_way_is_a_failure_too(
    queue, other, flows, both, *, end, options, state, reason, policy
):
    flow = await flows.add(
        FlowJob(
            name="parent",
            queue=queue.name,
            on_child_failure=policy,
            children=[FlowJob(name="leaf", queue=other.name, options=options)],
        )
    )

    await end(other, flow.children["leaf"].id)

    if policy == "collect":
        assert await queue.result(flow.id, timeout=10) == {"leaf": state}
        (ended,) = (await queue.children(flow.id)).values()
        assert (ended.state, ended.reason) == (state, reason)
        with pytest.raises(JobCancelled if state == "cancelled" else JobFailed):
            ended.result  # noqa: B018 it raises
        return
    with pytest.raises(JobFailed) as caught:
        await queue.result(flow.id, timeout=10)
    assert caught.value.reason == "child_failed"


async def test_usage_of_a_removed_child_stays_in_the_flow(queue, other, flows, any_url, work):
    async def pays_then_waits(job):
        await job.report_usage(model="m", tokens={"input": 7})
        await job.wait_for_signal("never")

    flow = await flows.add(
        FlowJob(
            name="parent",
            queue=queue.name,
            on_child_failure="collect",
            children=[FlowJob(name="leaf", queue=other.name)],
        )
    )
    async with (
        work(HANDLERS),
        Worker(other.name, pays_then_waits, connection=any_url),
    ):
        child = flow.children["leaf"].id
        await until_state(other, child, "suspended")
        await other.remove(child)
        assert await queue.result(flow.id, timeout=10) == {"leaf": "removed"}
    assert (await queue.flow_usage(flow.id)).tokens == {"input": 7}


@pytest.mark.parametrize("policy", ["fail", "collect"])
async def test_child_whose_wait_ran_out_without_a_worker_fails_and_its_parent_is_told(
    queue, other, flows, any_url, work, *, policy
):
    begun = asyncio.Event()

    async def waits(job):
        begun.set()
        await job.wait_for_signal("never", timeout=0.3)

    children = [FlowJob(name="leaf", queue=other.name)]
    flow = await flows.add(
        FlowJob(name="parent", queue=queue.name, on_child_failure=policy, children=children)
    )
    child = flow.children["leaf"].id
    async with Worker(other.name, waits, connection=any_url):
        await begun.wait()
    await asyncio.sleep(0.35)  # parked by now, and past its deadline

    async with work(HANDLERS), Worker(other.name, waits, connection=any_url):
        if policy == "collect":
            assert await queue.result(flow.id, timeout=10) == {"leaf": "failed"}
        else:
            with pytest.raises(JobFailed, match="child_failed"):
                await queue.result(flow.id, timeout=10)
    assert (await other.get(child)).error.error_class == "glidemq_core.errors.SignalTimeout"


async def test_child_that_stalled_out_fails_its_parent(queue, other, flows, any_url, work):
    flow = await flows.add(
        FlowJob(name="parent", queue=queue.name, children=[FlowJob(name="leaf", queue=other.name)])
    )
    async with (
        work(HANDLERS),
        Worker(other.name, lose, connection=any_url, lock_duration=0.3, max_stalled=0),
    ):
        with pytest.raises(JobFailed) as caught:
            await queue.result(flow.id, timeout=20)
    assert caught.value.reason == "child_failed"
    assert (await other.get(flow.children["leaf"].id)).reason == "stalled"


async def test_diamond_runs_each_node_once_in_order_and_counts_its_usage_once(
    queue, other, flows, both
):
    async def nodes():
        return await flows.add_dag(
            {
                "start": FlowJob(name="leaf", queue=queue.name, data="s"),
                "left": FlowJob(name="parent", queue=other.name),
                "right": FlowJob(name="parent", queue=queue.name),
                "end": FlowJob(name="parent", queue=other.name),
            },
            {"left": ["start"], "right": ["start"], "end": ["left", "right"]},
        )

    handles = await nodes()

    result = await other.result(handles["end"].id, timeout=10)

    assert result == {"left": {"start": {"leaf": "s"}}, "right": {"start": {"leaf": "s"}}}
    home = {"start": queue, "left": other, "right": queue, "end": other}
    jobs = {name: await home[name].get(handle.id) for name, handle in handles.items()}
    assert [job.run for job in jobs.values()] == [1] * 4
    assert jobs["start"].finished_at <= min(jobs["left"].started_at, jobs["right"].started_at)
    assert max(jobs["left"].finished_at, jobs["right"].finished_at) <= jobs["end"].started_at
    assert (await other.flow_usage(handles["end"].id)).tokens == {"input": 10}


async def test_what_is_wrong_in_a_flow_is_refused_before_any_key_is_written(
    queue, flows, any_server
):
    name = queue.name
    leaf_job = FlowJob(name="x", queue=name)
    bad = FlowJob(name="x", queue=name, options={"priority": 5000})
    unknown = FlowJob(name="x", queue=name, options={"nonsense": 1})
    twin = FlowJob(name="x", queue=name, options={"job_id": "twin"})
    brace = FlowJob(name="x", queue="a{b}")
    attempts = [
        flows.add_dag({"a": leaf_job, "b": leaf_job}, {"a": ["b"], "b": ["a"]}),
        flows.add_dag({"a": leaf_job}, {"a": ["nobody"]}),
        flows.add_dag({"a": leaf_job}, {"a": ["a"]}),
        *(
            flows.add(FlowJob(name="top", queue=name, children=[leaf_job, one]))
            for one in (bad, unknown, brace)
        ),
        flows.add(FlowJob(name="top", queue=name, children=[twin, twin])),
        flows.add(FlowJob(name="top", queue=name, on_child_failure="shrug")),
    ]
    for attempt in attempts:
        with pytest.raises(InvalidOption):
            await attempt
    assert any_server.keys("glidemq:*") == []


async def test_running_job_adds_children_and_goes_on_with_their_results(queue, other, work, leaves):
    async def boss(job):
        for i in range(3):
            await job.add_child("leaf", i, queue=other.name)
        ends = await job.wait_for_children()
        return [{key: end.result for key, end in sorted(ends.items())}, job.run]

    async with work(boss):
        job = await queue.add("boss")
        results, run = await job.result(timeout=10)
    assert results == {"leaf": {"leaf": 0}, "leaf#2": {"leaf": 1}, "leaf#3": {"leaf": 2}}
    assert run == 2
    assert (await other.counts())["completed"] == 3
    assert (await queue.flow_usage(job.id)).tokens == {"input": 30}


async def test_children_that_ended_before_their_parent_waits_wake_it_at_once(
    queue, other, work, leaves
):
    async def boss(job):
        await job.add_child("leaf", 1, queue=other.name)
        await eventually(lambda: _has_ended(queue, job.id))
        ends = await job.wait_for_children()
        return [ends["leaf"].result, job.run]

    async with work(boss):
        job = await queue.add("boss")
        assert await job.result(timeout=10) == [{"leaf": 1}, 1]


async def _has_ended(queue, id):
    return len(await queue.children(id)) == 1


async def test_rounds_of_children_keep_their_results_apart(queue, other, work, leaves):
    """A handler that starts again sees in each of its waits the children that it saw there first."""
    seen = []

    async def boss(job):
        await job.add_child("leaf", "first", queue=other.name, key="first")
        one = await job.wait_for_children()
        seen.append(sorted(one))
        for i in range(len(one)):  # what it adds next depends on what it saw
            await job.add_child("leaf", i, queue=other.name, key=f"second-{i}")
        two = await job.wait_for_children()
        return sorted(two)

    async with work(boss):
        job = await queue.add("boss")
        assert await job.result(timeout=10) == ["first", "second-0"]
    assert seen == [["first"]] * len(seen)
    assert (await other.counts())["completed"] == 2


async def test_what_was_streamed_before_waiting_for_children_is_not_streamed_again(
    queue, other, work, leaves
):
    async def boss(job):
        await job.stream_chunk("content", "asking ")
        await job.log("asking")
        await job.add_child("leaf", 1, queue=other.name)
        await job.wait_for_children()
        await job.stream_chunk("content", "done")
        return "asking done"

    async with work(boss):
        job = await queue.add("boss")
        chunks = [chunk async for chunk in job.stream()]
        assert kept_text(chunks) == await job.result(timeout=10)
    assert await queue.log(job.id) == ["asking"]


async def test_attempt_that_failed_after_adding_a_child_finds_the_same_child(
    queue, other, work, leaves
):
    async def boss(job):
        child = await job.add_child("leaf", 1, queue=other.name)
        if job.attempt == 1:
            raise ValueError("once")
        ends = await job.wait_for_children()
        return [child, ends["leaf"].id]

    async with work(boss):
        job = await queue.add("boss", attempts=2)
        first, second = await job.result(timeout=10)
    assert first == second
    assert (await other.counts())["completed"] == 1


async def test_signal_and_children_can_be_waited_for_together(queue, other, work, leaves):
    async def boss(job):
        await job.add_child("leaf", 1, queue=other.name)
        ends, signal = await asyncio.gather(
            job.wait_for_children(), job.wait_for_signal("go", timeout=60)
        )
        return [ends["leaf"].result, signal.data]

    for order in ("signal first", "children first"):
        async with work(boss):
            job = await queue.add("boss")
            if order == "signal first":
                await job.signal("go", 1)
            else:
                await eventually(lambda job=job: _has_ended(queue, job.id))
                await until_state(queue, job.id, "suspended")
                await job.signal("go", 1)
            assert await job.result(timeout=10) == [{"leaf": 1}, 1]


async def test_cancelled_parent_cancels_its_children_and_theirs(queue, other, flows, both):
    flow = await flows.add(
        FlowJob(
            name="parent",
            queue=queue.name,
            children=[
                FlowJob(
                    name="parent",
                    queue=other.name,
                    children=[FlowJob(name="leaf", queue=queue.name, options={"delay": 100})],
                ),
                FlowJob(name="leaf", queue=other.name, options={"delay": 100}),
            ],
        )
    )
    middle = flow.children["parent"]

    assert await queue.cancel(flow.id) == "cancelled"

    await until_state(other, middle.id, "cancelled")
    await until_state(other, flow.children["leaf"].id, "cancelled")
    await until_state(queue, middle.children["leaf"].id, "cancelled")


async def test_cancelled_parent_of_thousands_leaves_none_running(queue, flows, both):
    leaf = FlowJob(name="leaf", queue=queue.name, options={"delay": 100})
    flow = await flows.add(FlowJob(name="parent", queue=queue.name, children=[leaf] * 1_500))

    await queue.cancel(flow.id)

    await until_counted(queue, cancelled=1_501)


async def test_child_reaches_its_parent_after_a_time_without_workers(
    queue, other, flows, work, any_url
):
    flow = await flows.add(
        FlowJob(
            name="parent",
            queue=queue.name,
            children=[FlowJob(name="leaf", queue=other.name, data=1)],
        )
    )
    async with Worker(other.name, HANDLERS, connection=any_url):
        await other.result(flow.children["leaf"].id, timeout=5)
    async with Worker(other.name, HANDLERS, connection=any_url), work(HANDLERS):
        assert await queue.result(flow.id, timeout=10) == {"leaf": {"leaf": 1}}


async def test_parent_of_five_hundred_children_gets_them_all(queue, other, flows, both):
    flow = await flows.add(
        FlowJob(
            name="parent",
            queue=queue.name,
            children=[FlowJob(name="leaf", queue=other.name, data=i) for i in range(500)],
        )
    )
    result = await queue.result(flow.id, timeout=30)
    assert sorted(value["leaf"] for value in result.values()) == list(range(500))
    assert (await queue.flow_usage(flow.id)).tokens == {"input": 5000}
