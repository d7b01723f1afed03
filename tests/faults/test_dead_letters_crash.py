"""A dead letter whose worker dies beside the call that copies it."""

from __future__ import annotations

import pytest

from glidemq_core import Queue
from tests.harness.processes import eventually
from tests.harness.servers import ValkeyServer
from tests.harness.workers import Workers

pytestmark = pytest.mark.faults


@pytest.mark.parametrize("side", ["before", "after"])
async def test_failed_job_leaves_one_copy_though_its_worker_dies_beside_copying_it(
    server: ValkeyServer, queue: Queue, workers: Workers, side: str
):
    async with Queue(f"{queue.name}-dead", connection=server.url) as graveyard:
        first = await queue.add("unknown")
        point = {"GLIDEMQ_FAILPOINT": f"job_add.{side}:1"}
        doomed = workers.start(env=point, dead_letter=graveyard.name)

        assert await doomed.until_ended() == -9
        assert (await graveyard.counts())["waiting"] == (side == "after")
        workers.start(dead_letter=graveyard.name)
        second = await queue.add("unknown")

        async def last_is_copied() -> bool:
            return any(job.data["id"] == second.id for job in await graveyard.jobs("waiting"))

        await eventually(last_is_copied, 15)
        copied = [job.data["id"] for job in await graveyard.jobs("waiting")]

    assert sorted(copied) == sorted([first.id, second.id])
