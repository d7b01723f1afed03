"""Children that running jobs add, or that others add to them."""

import pytest

from glidemq_core import (
    Budget,
    FlowJob,
    FlowProducer,
    InvalidOption,
    JobNotFound,
    Parent,
    Queue,
    Worker,
    WrongState,
)
from tests.harness.jobs import until_state


async def test_child_with_the_key_of_one_of_the_flow_is_refused(queue, work, any_url):
    async def boss(job):
        if job.name == "leaf":
            return None
        with pytest.raises(InvalidOption) as caught:
            await job.add_child("leaf", key="first")
        return [caught.value.field, caught.value.value]

    async with work(boss), FlowProducer(any_url) as flows:
        flow = FlowJob(
            name="boss",
            queue=queue.name,
            children=[FlowJob(name="leaf", queue=queue.name, key="first")],
        )
        handle = await flows.add(flow)
        assert await queue.result(handle.id, timeout=10) == ["key", "first"]
    assert (await queue.counts())["completed"] == 2


async def leaf(job):
    return job.data * 2


async def boss(job):
    await job.wait_for_signal("go")
    ends = await job.wait_for_children()
    return {key: end.result for key, end in ends.items()}


async def test_children_that_others_add_are_waited_for_in_whatever_queue_they_are(
    queue, work, any_url
):
    handlers = {"boss": boss, "leaf": leaf}
    async with (
        Queue(f"{queue.name}-2", connection=any_url) as other,
        work(handlers),
        Worker(other.name, handlers, connection=any_url),
    ):
        job = await queue.add("boss")
        await until_state(queue, job.id, "suspended")
        await queue.add("leaf", 1, parent=Parent(id=job.id, queue=queue.name, key="here"))
        there = await other.add("leaf", 2, parent=Parent(id=job.id, queue=queue.name))
        await job.signal("go")
        assert await job.result(timeout=10) == {"here": 2, there.id: 4}


async def test_child_added_while_its_parent_waits_for_others_is_waited_for(queue, work, any_url):
    async with Queue(f"{queue.name}-2", connection=any_url) as other, work(boss):
        job = await queue.add("boss")
        await other.add("leaf", 1, parent=Parent(id=job.id, queue=queue.name, key="a"))
        await job.signal("go")
        await until_state(queue, job.id, "waiting_children")
        await other.add("leaf", 2, parent=Parent(id=job.id, queue=queue.name, key="b"))
        async with Worker(other.name, leaf, connection=any_url):
            assert await job.result(timeout=10) == {"a": 2, "b": 4}


async def test_second_child_of_a_key_is_the_first(queue):
    job = await queue.add("boss")
    parent = Parent(id=job.id, queue=queue.name, key="k")

    first, second = [await queue.add("leaf", n, parent=parent) for n in (1, 2)]

    assert (first.id, first.is_duplicate, second.is_duplicate) == (second.id, False, True)
    assert (await queue.counts())["waiting"] == 2


async def test_child_spends_from_the_budgets_of_its_parent(queue, work, any_url):
    job = await queue.add("boss", budget=Budget(max_total_tokens=100))

    child = await queue.add("leaf", 1, parent=Parent(id=job.id, queue=queue.name))

    budgets = (await child.snapshot()).options["budgets"]
    assert len(budgets) == 1
    assert budgets == (await job.snapshot()).options["budgets"]


async def test_parent_that_is_unknown_or_has_ended_gets_no_child(queue):
    ended = await queue.add("boss")
    await ended.cancel()
    before = await queue.counts()

    for id, error in ((ended.id, WrongState), ("nobody", JobNotFound)):
        with pytest.raises(error):
            await queue.add("leaf", 1, parent=Parent(id=id, queue=queue.name))
    for wrong in (
        lambda: Parent(id="a", queue="q", on_failure="shrug"),
        lambda: Parent(id="a", queue="a:b"),
    ):
        with pytest.raises(InvalidOption, match="parent"):
            wrong()
    with pytest.raises(InvalidOption, match="parent"):
        await queue.add("leaf", parent="a")
    assert await queue.counts() == before
