"""What can't be told to another queue is not lost, shown to people, and holds up nothing else."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from glidemq_core import Budget, FlowJob, FlowProducer, Ledger, NewJob, Worker
from tests.harness.fsck import fsck
from tests.harness.processes import eventually

MANY = 130  # more than are read at a time


async def fail(job):
    if job.name == "child":
        return "done"
    raise ValueError("no")


async def parent(job):
    ends = await job.wait_for_children()
    return [end.value for end in ends.values()]


@pytest.fixture
def broken(any_server, queue_name):
    """A queue that refuses every call for good, until it is repaired; answers its name."""
    name = f"{queue_name}-broken"
    any_server.cmd("SET", f"glidemq:{{{name}}}:meta", "no hash")
    yield name
    any_server.cmd("DEL", f"glidemq:{{{name}}}:meta")


def listed(url, *arguments):
    command = [sys.executable, "-m", "glidemq_core.cli", "outbox", *arguments, "--url", url]
    return subprocess.run(command, capture_output=True, text=True, check=False)


async def a_child_reaches_its_parent(flows, queue, other):
    child = FlowJob(name="child", queue=queue.name)
    family = await flows.add(FlowJob(name="parent", queue=other.name, children=[child]))
    assert await other.result(family.id, timeout=20) == ["done"]


async def test_entries_that_are_refused_hold_up_none_behind_them_and_none_is_lost(
    queue, other, work, any_server, broken
):
    async with (
        FlowProducer(connection=any_server.url) as flows,
        Worker(other.name, parent, connection=any_server.url),
        work(fail, concurrency=20, dead_letter=broken),
    ):
        jobs = await queue.add_many([NewJob(name="bad", data=n) for n in range(MANY)])
        for job in jobs:
            with pytest.raises(Exception, match="no"):
                await job.result(timeout=20)

        await a_child_reaches_its_parent(flows, queue, other)

        assert any_server.cmd("ZCARD", f"glidemq:{{{queue.name}}}:outbox_due") > 0
        any_server.cmd("DEL", f"glidemq:{{{broken}}}:meta")

        async def all_told():
            return any_server.cmd("ZCARD", f"glidemq:{{{broken}}}:waiting") == MANY

        await eventually(all_told, timeout=60)


async def test_entry_that_is_refused_for_long_is_seen_and_can_be_given_up(
    queue, work, any_server, any_url, broken
):
    async with work(fail, dead_letter=broken):
        job = await queue.add("bad")

        async def stuck():
            return any_server.cmd("ZCARD", f"glidemq:{{{queue.name}}}:outbox_due") == 1

        await eventually(stuck)

    (entry,) = json.loads(listed(any_url, queue.name, "--json").stdout)
    assert (entry["kind"], entry["about"]) == ("dead", job.id)
    assert entry["tries"] >= 1
    assert "WRONGTYPE" in entry["why"]
    in_a_while = int(entry["id"].partition("-")[0]) + 11 * 60_000
    assert fsck(any_server, queue.name) == []
    assert [line for line in fsck(any_server, queue.name, now=in_a_while) if "outbox" in line] == [
        f"outbox: entry {entry['id']} could not be relayed for 11 minutes; `glidemq outbox` says why"
    ]

    assert listed(any_url, queue.name, "--forget", entry["id"]).returncode == 0
    assert not any_server.cmd("EXISTS", f"glidemq:{{{queue.name}}}:outbox_due")


async def test_entry_of_a_newer_version_waits_for_one_and_the_others_pass(
    queue, other, work, any_server, any_url
):
    root = f"glidemq:{{{queue.name}}}"
    any_server.cmd("XADD", f"{root}:outbox", "*", "kind", "unheard", "x", "y")
    async with (
        FlowProducer(connection=any_url) as flows,
        Worker(other.name, parent, connection=any_url),
        work(fail),
    ):
        await a_child_reaches_its_parent(flows, queue, other)

        async def stuck():
            return any_server.cmd("ZCARD", f"{root}:outbox_due") == 1

        await eventually(stuck)


async def test_queue_that_refuses_its_wake_holds_up_none_of_the_others_that_wait_for_room(
    queue, other, work, any_server, any_url
):
    async def spend(job):
        async with job.llm_call("m", tokens={"input": 1}) as call:
            call.tokens = {"input": 1}

    async def both_parked():
        return [(await one.counts())["delayed"] for one in (other, queue)] == [1, 1]

    generation = f"glidemq:{{{other.name}}}:generation:{queue.name}/b"
    ledger_due = f"glidemq:{{ledger:{queue.name}}}:outbox_due"
    async with Ledger(queue.name, connection=any_url) as ledger, work(spend):
        await ledger.open_budget("b", Budget(max_total_tokens=0, on_exceeded="pause"))
        options = {"budgets": ["b"], "ledger": queue.name}
        async with Worker(other.name, spend, connection=any_url):
            first = await other.add("n", **options)
            await eventually(lambda: is_delayed(other))
        second = await queue.add("n", **options)
        await eventually(both_parked)
        any_server.cmd("LPUSH", generation, "no number")

        await ledger.update_budget("b", Budget(max_total_tokens=2, on_exceeded="pause"))

        await second.result(timeout=20)
        assert any_server.cmd("ZCARD", ledger_due) == 1
        any_server.cmd("DEL", generation)
        async with Worker(other.name, spend, connection=any_url):
            await first.result(timeout=20)


async def is_delayed(queue):
    return (await queue.counts())["delayed"] == 1
