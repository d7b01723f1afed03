"""Dead letters: a job that fails for good leaves one copy with all that is needed to look into it and to repeat it."""

import pytest

from glidemq_core import Budget, FlowJob, FlowProducer, JobFailed, UnrecoverableError
from glidemq_core.ledger import Ledger
from tests.harness.jobs import lose
from tests.harness.processes import eventually


@pytest.fixture
def graveyard(other):
    return other


async def copies(graveyard):
    return await graveyard.jobs("waiting")


async def the_copy(graveyard):
    (copy,) = await eventually(lambda: copies(graveyard))
    return copy


async def breaks(job):
    raise ValueError(f"attempt {job.attempt}")


async def gives_up(job):
    raise UnrecoverableError("no use")


async def waits(job):
    await job.wait_for_signal("never", timeout=0.05)


async def spends(job):
    async with job.llm_call("m", tokens={"input": 100}):
        raise AssertionError("the budget lets nothing through")


@pytest.mark.parametrize(
    ("handler", "options", "reason", "error"),
    [
        (breaks, {"attempts": 2}, "error", "ValueError"),
        (gives_up, {"attempts": 5}, "unrecoverable", "UnrecoverableError"),
        (waits, {}, "error", "SignalTimeout"),
        (spends, {"budgets": ["none"]}, "budget", "BudgetExceeded"),
        (lose, {}, "stalled", ""),
        (breaks, {"delay": 100, "ttl": 0.05}, "expired", ""),
    ],
    ids=["error", "unrecoverable", "wait", "budget", "stall", "expiry"],
)
async def test_each_way_to_fail_for_good_leaves_one_copy(
    queue, work, graveyard, any_url, *, handler, options, reason, error
):
    async with Ledger(connection=any_url) as ledger:
        await ledger.open_budget("none", Budget(max_total_tokens=1))
    data = {"text": "ü😀"}

    lock = 0.4 if handler is lose else 30
    async with work(handler, dead_letter=graveyard.name, lock_duration=lock, max_stalled=0):
        job = await queue.add("kind", data, **options)
        with pytest.raises(JobFailed) as caught:
            await job.result(timeout=20)
        copy = await the_copy(graveyard)
        done = await queue.add("other", attempts=1, delay=100)
        await done.cancel()

    assert caught.value.reason == reason
    assert (copy.name, copy.data["queue"], copy.data["data"]) == ("kind", queue.name, data)
    assert copy.data["reason"] == reason
    assert copy.data.get("error", {}).get("class", "").endswith(error)
    if reason == "error" and handler is breaks:
        assert copy.data["attempt"] == 2
        assert "attempt 2" in copy.data["error"]["traceback"]
        assert copy.data["options"]["attempts"] == 2
    assert len(await copies(graveyard)) == 1  # none of the cancelled one


@pytest.mark.parametrize("when", ["flow", "running"])
async def test_parent_that_its_child_fails_while_it_waits_leaves_a_copy(
    queue, work, graveyard, any_url, when
):
    async def parent(job):
        await job.add_child("child")
        await job.wait_for_children()

    async with (
        work({"parent": parent, "child": breaks}, dead_letter=graveyard.name),
        FlowProducer(any_url) as flows,
    ):
        if when == "flow":
            child = FlowJob(name="child", queue=queue.name)
            added = await flows.add(FlowJob(name="parent", queue=queue.name, children=[child]))
        else:
            added = await queue.add("parent")
        with pytest.raises(JobFailed) as caught:
            await queue.result(added.id, timeout=10)
        found = await eventually(lambda: both(graveyard))

    assert caught.value.reason == "child_failed"
    assert found["parent"].data["reason"] == "child_failed"


async def both(graveyard):
    found = {job.name: job for job in await graveyard.jobs("waiting")}
    return found if len(found) == 2 else None


async def test_copy_is_there_although_the_job_is_removed_at_once(queue, work, graveyard):
    async with work(breaks, dead_letter=graveyard.name, remove_on_fail=True):
        job = await queue.add("kind", 7)
        with pytest.raises(JobFailed):
            await job.result(timeout=5)
        assert (await the_copy(graveyard)).data["data"] == 7
    assert await queue.get(job.id) is None


async def test_retries_and_successes_leave_no_copy(queue, work, graveyard):
    async def handler(job):
        if job.attempt == 1:
            raise ValueError("once")

    async with work(handler, dead_letter=graveyard.name):
        jobs = [await queue.add("n", attempts=2) for _ in range(5)]
        for job in jobs:
            await job.result(timeout=5)
    assert await graveyard.counts() == dict.fromkeys(await graveyard.counts(), 0)
