"""Agents whose workers die: whatever was done is not done again, and nothing is shown twice."""

from __future__ import annotations

from typing import Any

import pytest

from glidemq_core import Chunk, JobHandle, Queue, kept_text
from glidemq_core.stream import standing
from tests.harness.provider import Behaviour, Provider
from tests.harness.workers import Workers

pytestmark = pytest.mark.faults

DOOMED = {"lock_duration": 1}
DATA = {"model": "m", "messages": [{"role": "user", "content": "go"}]}
TURNS = 3
# Each turn of the model is noted before it (paid) and after it, each tool after it.
ENTRIES = {1: "ask", 2: "turn", 3: "tool", 4: "ask", 5: "turn", 6: "tool", 7: "ask", 8: "turn"}


def looks(n: int, **more: Any) -> Behaviour:
    return Behaviour(text=f"turn {n}. ", tools=[{"name": "look", "arguments": {"n": n}}], **more)


async def read(job: JobHandle) -> list[Chunk]:
    return [chunk async for chunk in job.stream()]


def looked(workers: Workers) -> list[int]:
    """What the tool was called with, in all workers."""
    return [note["n"] for worker in workers.all for note in worker.noted("looked")]


@pytest.mark.parametrize("side", ["before", "after"])
@pytest.mark.parametrize("entry", ENTRIES)
async def test_death_beside_any_entry_repeats_at_most_what_was_in_flight(
    queue: Queue, workers: Workers, provider: Provider, entry: int, side: str
):
    provider.usually(Behaviour(text="the end."), model="m")
    env = {"FAKE_PROVIDER_PORT": str(provider.port)}
    in_flight = ENTRIES[entry] if side == "before" else None
    # What is asked for again says the same again.
    turns = [looks(1), looks(2)]
    if in_flight == "turn" and entry < 8:
        turns.insert(entry // 3, turns[entry // 3])
    provider.plan("m", *turns)
    job = await queue.add("agent", DATA)
    doomed = workers.start(env={**env, "GLIDEMQ_FAILPOINT": f"job_step.{side}:{entry}"}, **DOOMED)

    assert await doomed.until_ended() == -9
    workers.start(env=env)
    chunks = await read(job)

    result = await job.result(timeout=30)
    assert (result["turns"], result["text"], len(result["tool_calls"])) == (TURNS, "the end.", 2)
    assert kept_text(chunks) == "turn 1. turn 2. the end."
    shown = [chunk.content for chunk in standing(chunks) if chunk.type == "tool_result"]
    assert shown == ["1", "2"]
    assert len(provider.calls()) == TURNS + (in_flight == "turn")
    again = [entry // 3] if in_flight == "tool" else []
    assert sorted(looked(workers)) == sorted([1, 2, *again])
    found = await job.snapshot()
    assert found is not None
    assert found.stalled <= 1
    assert len(found.usage.calls) == len(provider.calls())


async def test_worker_killed_in_every_turn_asks_once_more_for_each_kill(
    queue: Queue, workers: Workers, provider: Provider
):
    turns = [looks(1), looks(2), Behaviour(text="the end.")]
    for turn in turns:
        provider.plan("m", Behaviour(text="cut off here", faults={1: "hang"}), turn)
    env = {"FAKE_PROVIDER_PORT": str(provider.port)}
    job = await queue.add("agent", DATA)

    for number in range(1, TURNS + 1):
        worker = workers.start(env=env, **DOOMED)
        provider.wait("hang", count=number, timeout=30)
        worker.kill()
    workers.start(env=env)
    chunks = await read(job)

    assert (await job.result(timeout=30))["turns"] == TURNS
    assert kept_text(chunks) == "turn 1. turn 2. the end."
    assert len(provider.calls()) == 2 * TURNS
    assert looked(workers) == [1, 2]
