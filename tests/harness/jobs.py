"""What tests wait for in a queue: states of jobs, whole streams."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable
from typing import TypeVar

from glidemq_core import Job, JobHandle, Queue, RunningJob

from .processes import eventually
from .servers import Look

T = TypeVar("T")


async def until_state(queue: Queue, id: str, state: str) -> Job:
    """Wait until a job is in a state; answers it as it then is."""

    async def reached() -> Job | None:
        job = await queue.get(id)
        return job if job is not None and job.state == state else None

    return await eventually(reached, 10, f"{id} is {state}")


async def until_counted(queue: Queue, **counts: int) -> None:
    """Wait until so many jobs are in these states."""

    async def reached() -> bool:
        found = await queue.counts()
        return counts.items() <= found.items()

    await eventually(reached, 20, f"{counts}")


async def until_ended(job: JobHandle) -> Job:
    """Read a job's stream to its end; answers the job as it then is."""
    chunks = await read(job.stream())
    assert chunks[-1].type == "end"
    snapshot = await job.snapshot()
    assert snapshot is not None
    return snapshot


async def read(items: AsyncIterable[T]) -> list[T]:
    """All that comes."""
    return [item async for item in items]


def subscribers(server: Look, queue: Queue) -> int:
    """How many connections hear the news of a queue."""
    where = "SHARDNUMSUB" if server.is_cluster else "NUMSUB"
    return server.cmd("PUBSUB", where, f"glidemq:{{{queue.name}}}:news")[1]


async def lose(job: RunningJob) -> None:
    """For a handler: its worker says nothing more of the run, as if it had died, once the run's start is known."""
    await eventually(lambda: job._run.is_started_known, 10, "its start is known")
    job._run.stop("lease_lost")
    await asyncio.Event().wait()
