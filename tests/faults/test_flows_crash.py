"""Flows whose workers are killed: each child is run to one end, each parent is released once."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from glidemq_core import FlowJob, FlowProducer, Queue
from tests.harness.fsck import fsck
from tests.harness.processes import eventually
from tests.harness.servers import ValkeyServer
from tests.harness.workers import WorkerProcess, Workers

pytestmark = pytest.mark.faults


def tree(queue: str, depth: int) -> FlowJob:
    if depth == 0:
        return FlowJob(name="wait", queue=queue, data={"seconds": 0.25})
    return FlowJob(
        name="echo",
        queue=queue,
        data=depth,
        children=[tree(queue, depth - 1) for _ in range(3)],
    )


async def test_trees_survive_kills_while_parents_and_children_finish(
    server: ValkeyServer, queue: Queue, workers: Workers, tmp_path: Path
):
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    producer = FlowProducer(connection=server.url)
    options = {"concurrency": 4, "lock_duration": 1, "max_stalled": 1000}
    for _ in range(2):
        workers.start(**options)
    flows = await producer.add_many([tree(queue.name, 2) for _ in range(5)])

    def busy() -> list[WorkerProcess]:
        return [worker for worker in workers.all if worker.is_busy]

    await eventually(busy)
    for _ in range(8):
        if found := busy():
            dice.choice(found).kill()
            workers.start(**options)
        await asyncio.sleep(dice.uniform(0.05, 0.25))
    results = [await queue.result(flow.id, timeout=40) for flow in flows]
    await producer.close()

    assert results == [2] * 5
    counts = await queue.counts()
    assert counts["completed"] == 5 * (1 + 3 + 9)
    assert sum(counts.values()) == counts["completed"]
    for flow in flows:
        assert len(await queue.children(flow.id)) == 3
    notes = [note for worker in workers.all for note in worker.noted("start")]
    ends = [note for worker in workers.all for note in worker.noted("end", how="returned")]
    assert len(notes) > counts["completed"]  # some runs were killed
    parents = [flow.id for flow in flows]
    first_start = {id: min(note["t"] for note in notes if note["job"] == id) for id in parents}
    for flow in flows:
        for child in flow.children.values():
            assert min(n["t"] for n in ends if n["job"] == child.id) <= first_start[flow.id]
    assert fsck(server, queue.name) == []
