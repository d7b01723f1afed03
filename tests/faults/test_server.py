"""A server that dies, forgets its functions or is full: what was acknowledged is kept, and work goes on by itself."""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
import statistics
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from glidemq_core import Job, NewJob, OutOfMemory, Queue
from glidemq_core._library import bundle, lua_directory
from tests.harness.auditor import audit
from tests.harness.fsck import fsck
from tests.harness.processes import eventually
from tests.harness.servers import ValkeyServer
from tests.harness.workers import Workers

pytestmark = pytest.mark.faults

# Longer than any outage here: a lease that is lost in one would be a fault.
LEASE = 10.0


class Load:
    """Adds jobs, some that only answer and some that stream, until it is told to stop."""

    def __init__(self, queue: Queue, pause: float) -> None:
        self.ids: list[str] = []
        self._queue = queue
        self._pause = pause
        self._goes_on = True

    async def run(self) -> None:
        while self._goes_on:
            new = [
                NewJob(name="echo", data=len(self.ids)),
                NewJob(name="stream", data={"chunks": 5, "pause": 0.01}),
            ]
            self.ids += [handle.id for handle in await self._queue.add_many(new)]
            await asyncio.sleep(self._pause)

    def stop(self) -> None:
        self._goes_on = False

    async def until_grown(self, by: int) -> None:
        """Until so many more have been acknowledged."""
        goal = len(self.ids) + by
        await eventually(lambda: len(self.ids) >= goal, 15, f"{by} more adds")


@contextlib.asynccontextmanager
async def load_on(queue: Queue, *, pause: float = 0.02) -> AsyncIterator[Load]:
    """Load for as long as the block runs; then waits until every job that was acknowledged has ended."""
    load = Load(queue, pause)
    async with asyncio.TaskGroup() as group:
        group.create_task(load.run())
        yield load
        load.stop()
    async with asyncio.timeout(30):
        await asyncio.gather(*(queue.result(id) for id in load.ids))


def open_gate(gate: Path) -> None:
    """Let the first runs of the jobs that wait at it go on."""
    Path(f"{gate}.1").touch()


@pytest.fixture
def durable_server() -> Iterator[ValkeyServer]:
    with ValkeyServer(appendonly=True, appendfsync="always") as started:
        yield started


# -- kill -9 of the server --------------------------------------------------


async def test_server_killed_under_load_keeps_every_acknowledged_job(
    durable_server: ValkeyServer, queue_name: str, tmp_path: Path
):
    server = durable_server
    async with Queue(queue_name, connection=server.url) as queue:
        with Workers(server.url, queue_name, tmp_path) as workers:
            for _ in range(2):
                workers.start(concurrency=4, lock_duration=LEASE)

            async with load_on(queue) as load:
                for _ in range(3):
                    await load.until_grown(by=random.randrange(20, 60))
                    server.kill()
                    server.start()
                await load.until_grown(by=20)

            await audit(server, queue, load.ids, workers.all)
            assert fsck(server, queue_name) == []


async def test_readers_go_on_after_the_servers_death(
    durable_server: ValkeyServer, queue_name: str, tmp_path: Path
):
    server = durable_server
    async with Queue(queue_name, connection=server.url) as queue:
        with Workers(server.url, queue_name, tmp_path) as workers:
            workers.start(lock_duration=LEASE)
            job = await queue.add("stream", {"chunks": 40, "pause": 0.02})
            read: list[str] = []

            async with asyncio.timeout(20):
                async for chunk in job.stream():
                    read.append(chunk.content)
                    if len(read) == 5:
                        server.kill()
                        server.start()

            said = [f"{i}/1 " for i in range(40)]
            assert read == [*said, "completed"]
            assert await job.result(timeout=30) == {"text": "".join(said)}


# -- functions that vanish --------------------------------------------------


async def test_functions_removed_every_second_under_load_come_back_by_themselves(
    server: ValkeyServer, queue: Queue, workers: Workers
):
    library = bundle()
    for _ in range(2):
        workers.start(concurrency=4, lock_duration=LEASE)

    async with load_on(queue, pause=0.05) as load:
        for i in range(10):
            await load.until_grown(by=2)
            if i % 2:
                server.cmd("FUNCTION", "FLUSH", "SYNC")
            else:
                server.cmd("FUNCTION", "DELETE", library.name)
            await asyncio.sleep(1)

    await audit(server, queue, load.ids, workers.all)
    assert fsck(server, queue.name) == []


async def test_quiet_job_keeps_its_lease_when_the_functions_vanish(
    server: ValkeyServer, queue: Queue, workers: Workers, tmp_path: Path
):
    gate = tmp_path / "gate"
    worker = workers.start(concurrency=1, lock_duration=2)
    job = await queue.add("gate", {"gate": str(gate)})
    await worker.until("waiting")

    # Nothing but the heartbeat calls the server now.
    server.cmd("FUNCTION", "FLUSH", "SYNC")
    await asyncio.sleep(4)
    open_gate(gate)

    await job.result(timeout=30)
    assert [line["how"] for line in worker.noted("end")] == ["returned"]


async def test_newer_functions_are_not_replaced_by_older_ones(
    server: ValkeyServer, queue: Queue, workers: Workers, tmp_path: Path
):
    newer = tmp_path / "lua"
    shutil.copytree(lua_directory(), newer)
    protocol, _, revision = (newer / "VERSION").read_text().strip().partition(".")
    (newer / "VERSION").write_text(f"{protocol}.{int(revision) + 1}\n")
    text = bundle(directory=newer).text
    workers.start()

    for _ in range(3):
        server.cmd("FUNCTION", "FLUSH", "SYNC")
        server.cmd("FUNCTION", "LOAD", text)
        async with Queue(queue.name, connection=server.url) as another:
            assert await (await another.add("echo", 1)).result(timeout=30) == 1

        (library,) = server.cmd("FUNCTION", "LIST", "WITHCODE")
        assert library[library.index(b"library_code") + 1].decode() == text


# -- memory -----------------------------------------------------------------

LARGE = {"seconds": 0, "filler": "x" * 50_000}


@pytest.fixture
def small_server() -> Iterator[ValkeyServer]:
    with ValkeyServer() as started:
        yield started


def used_memory(server: ValkeyServer) -> int:
    for line in server.cmd("INFO", "memory").decode().splitlines():
        if line.startswith("used_memory:"):
            return int(line.partition(":")[2])
    raise AssertionError("no used_memory")


async def fill(queue: Queue, server: ValkeyServer) -> list[str]:
    """Limit the server's memory to a little more than it has, and add jobs until it is full; their ids."""
    server.cmd("CONFIG", "SET", "maxmemory", used_memory(server) + 3_000_000)
    ids: list[str] = []

    async def add_until_refused() -> None:
        while len(ids) < 1000:
            ids.append((await queue.add("wait", LARGE, remove_on_complete=True)).id)

    with pytest.raises(OutOfMemory):
        await add_until_refused()
    return ids


async def test_full_server_refuses_adds_and_lets_running_jobs_finish(
    small_server: ValkeyServer, queue_name: str, tmp_path: Path
):
    server, gate = small_server, tmp_path / "gate"
    async with Queue(queue_name, connection=server.url) as queue:
        with Workers(server.url, queue_name, tmp_path) as workers:
            worker = workers.start(concurrency=4, lock_duration=2)
            running = await queue.add_many(
                [
                    NewJob(name="gate", data={"gate": str(gate), "chunks": 1, "usage": 1})
                    for _ in range(4)
                ]
            )
            await worker.until("waiting", count=4)
            filled = await fill(queue, server)
            before = await queue.counts()
            with pytest.raises(OutOfMemory):
                await queue.add_many([NewJob(name="wait", data=LARGE) for _ in range(3)])
            assert await queue.counts() == before
            # Two leases: they are renewed although the server is full.
            await asyncio.sleep(4)

            open_gate(gate)

            results = [await job.result(timeout=30) for job in running]
            assert [result["run"] for result in results] == [1] * 4
            # What waits runs too, and makes room as it goes.
            await eventually(lambda: are_gone(queue, filled), 20, "all that waited has run")
            again = await queue.add("wait", LARGE)
            assert await again.result(timeout=30) == {"run": 1}
            await audit(server, queue, [job.id for job in (*running, again)], workers.all)
            booked = [await job.snapshot() for job in running]
            assert [tokens(job) for job in booked] == [15] * 4
            assert fsck(server, queue_name) == []


async def test_worker_is_woken_at_once_after_the_server_was_full(
    small_server: ValkeyServer, queue_name: str, tmp_path: Path
):
    server, gate = small_server, tmp_path / "gate"
    async with Queue(queue_name, connection=server.url) as queue:
        with Workers(server.url, queue_name, tmp_path) as workers:
            running = await queue.add("gate", {"gate": str(gate)})
            worker = workers.start(concurrency=1)
            await worker.until("waiting")
            # With its slot taken it waits on its inbox alone, and has to end that wait when the slot is free.
            await eventually(lambda: b" cmd=blpop " in server.cmd("CLIENT", "LIST"), 10, "the wait")
            server.cmd("CONFIG", "SET", "maxmemory", 1)
            open_gate(gate)
            await running.result(timeout=30)

            server.cmd("CONFIG", "SET", "maxmemory", 0)
            loop = asyncio.get_running_loop()
            took: list[float] = []
            for _ in range(6):
                began = loop.time()
                await (await queue.add("echo", 1)).result(timeout=30)
                took.append(loop.time() - began)
            worker.terminate()

            assert await worker.until_ended() == 0
            # The first ends the wait of before; an idle worker that nobody wakes looks again after two seconds.
            assert statistics.median(took[1:]) < 1


async def are_gone(queue: Queue, ids: list[str]) -> bool:
    return not [id for id in ids if await queue.get(id) is not None]


def tokens(job: Job | None) -> int:
    assert job is not None
    return job.usage.total_tokens
