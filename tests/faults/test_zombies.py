"""Runs that have lost their job: frozen past the lease, stopped, cancelled. They change nothing and leave nothing held."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from glidemq_core import JobCancelled, JobHandle, LeaseLost, Queue, Worker, _glide_setup
from glidemq_core._client import Client
from glidemq_core._target import parse
from tests.harness.auditor import audit
from tests.harness.processes import eventually
from tests.harness.proxy import Proxy
from tests.harness.servers import ValkeyServer
from tests.harness.workers import WorkerProcess, Workers

pytestmark = pytest.mark.faults

LEASE = 1.0


@pytest.fixture
async def client(server: ValkeyServer) -> AsyncIterator[Client]:
    """To call the server's functions as a forger would."""
    opened = Client(parse(server.url))
    yield opened
    await opened.close()


def everything(server: ValkeyServer, queue: Queue, id: str) -> dict[str, Any]:
    """All a job owns, and where it is listed."""
    key = f"glidemq:{{{queue.name}}}:job:{id}"
    return {
        "fields": server.cmd("HGETALL", key),
        "chunks": server.cmd("XRANGE", f"{key}:chunks", "-", "+"),
        "log": server.cmd("LRANGE", f"{key}:log", 0, -1),
        "usage": sorted(server.cmd("HGETALL", f"{key}:usage")),
        "completed": server.cmd(
            "ZRANGE", f"glidemq:{{{queue.name}}}:completed", 0, -1, "WITHSCORES"
        ),
    }


async def until_chunk(server: ValkeyServer, queue: Queue, id: str, *, runs: int = 1) -> None:
    """Wait until each of the job's runs has a chunk on the server: they are known to have started."""
    key = f"glidemq:{{{queue.name}}}:job:{id}:chunks"
    await eventually(lambda: server.cmd("XLEN", key) >= 2 * runs - 1, 10, "the first chunk")


async def freeze_and_replace(
    server: ValkeyServer, queue: Queue, workers: Workers, tmp_path: Path
) -> tuple[WorkerProcess, JobHandle, str]:
    """A job whose first worker is frozen while a second has it, until "gate.2": the frozen one, job, its first token."""
    data = {"gate": str(tmp_path / "gate"), "chunks": True, "usage": True}
    handle = await queue.add("gate", data)
    frozen = workers.start(lock_duration=LEASE)
    await frozen.until("waiting")
    await until_chunk(server, queue, handle.id)
    token = server.cmd("HGET", f"glidemq:{{{queue.name}}}:job:{handle.id}", "token").decode()
    frozen.freeze()
    heir = workers.start()
    await heir.until("waiting")
    await until_chunk(server, queue, handle.id, runs=2)
    return frozen, handle, token


async def finish(handle: JobHandle, tmp_path: Path) -> None:
    (tmp_path / "gate.2").touch()
    assert await handle.result(timeout=30) == {"text": "from 2 done", "run": 2}


async def test_a_worker_frozen_past_its_lease_stops_its_run_when_it_wakes(
    server: ValkeyServer, queue: Queue, workers: Workers, tmp_path: Path
):
    frozen, handle, _ = await freeze_and_replace(server, queue, workers, tmp_path)

    frozen.thaw()

    await frozen.until("end", how="CancelledError")
    assert len(frozen.noted("refused")) == 1
    await finish(handle, tmp_path)
    await audit(server, queue, [handle.id])
    job = await handle.snapshot()
    assert job is not None
    assert (job.stalled, job.run, job.attempt) == (1, 2, 1)
    # Three calls were paid for: one in each run before it waited, and one that the first made when it woke.
    assert sorted((call["run"], call["tokens"]["input"]) for call in job.usage.calls) == [
        (1, 10),
        (1, 100),
        (2, 10),
    ]
    assert job.usage.total_tokens == 15 + 150 + 15


@pytest.mark.parametrize("ended", [False, True], ids=["while the next runs", "after it has ended"])
async def test_what_a_replaced_run_writes_is_refused_without_a_trace(
    server: ValkeyServer,
    queue: Queue,
    workers: Workers,
    tmp_path: Path,
    client: Client,
    *,
    ended: bool,
):
    _, handle, token = await freeze_and_replace(server, queue, workers, tmp_path)
    if ended:
        await finish(handle, tmp_path)
    id, root = handle.id, f"glidemq:{{{queue.name}}}"
    before = everything(server, queue, id)

    for change in ({"progress": "1"}, {"log": ["zombie"]}, {"data": "{}"}):
        with pytest.raises(LeaseLost):
            await client.call("job_update", root, {"id": id, "token": token, "n": 99, **change})
    part = [id, token, 1, 2, [["content", "zombie"]]]
    appended = msgspec.msgpack.decode(await client.call("stream_append", root, {"parts": [part]}))
    tail = {"tail": [2, [["content", "zombie"]]]}
    codes = [
        await hand_in(client, root, [id, token, "completed", 1000, '"zombie"', tail], turn=1),
        await hand_in(client, root, [id, token, "failed", 1000, None, {"reason": "error"}], turn=2),
        await hand_in(client, root, [id, token, "released", 0], turn=3),
    ]
    beat = {"worker": "zombie", "leases": [[id, token]], "started": [[id, token, 5]]}
    lost = msgspec.msgpack.decode(await client.call("job_beat", root, beat))[0]

    assert (appended[0][1], codes, lost) == ("s", ["s", "s", "s"], [id])
    assert everything(server, queue, id) == before
    if not ended:
        await finish(handle, tmp_path)
    await audit(server, queue, [id])


async def hand_in(client: Client, root: str, outcome: list[Any], *, turn: int) -> str:
    """The code that a turn has for an outcome."""
    args = {"worker": "zombie", "turn": turn, "nonce": "n", "want": 0, "lease_ms": 500}
    args |= {"suspects": 0, "max_stalled": 3, "done": [outcome]}
    return msgspec.msgpack.decode((await client.call("turn", root, args))[0])[0]


async def test_usage_of_a_replaced_run_is_booked_once(
    server: ValkeyServer, queue: Queue, workers: Workers, tmp_path: Path, client: Client
):
    _, handle, _ = await freeze_and_replace(server, queue, workers, tmp_path)
    await finish(handle, tmp_path)
    id, root = handle.id, f"glidemq:{{{queue.name}}}"
    report = {
        "id": id,
        "call": f"{id}/1/9",
        "model": "m",
        "tokens": {"input": 7},
        "costs": {},
        "entry": "{}",
    }

    answers = [await client.call("job_usage", root, report) for _ in range(3)]

    assert answers == [1, 0, 0]
    job = await queue.get(id)
    assert job is not None
    assert job.usage.total_tokens == 15 + 15 + 7


async def test_a_worker_frozen_for_less_than_its_lease_keeps_its_job(
    server: ValkeyServer, queue: Queue, workers: Workers, tmp_path: Path
):
    lease = 4.0
    handle = await queue.add("gate", {"gate": str(tmp_path / "gate"), "chunks": True})
    frozen = workers.start(lock_duration=lease)
    await frozen.until("waiting")
    await until_chunk(server, queue, handle.id)
    idle = workers.start(lock_duration=lease)
    await idle.until("up")

    for _ in range(2):
        frozen.freeze()
        await asyncio.sleep(lease / 3)  # of the lease two thirds are left
        frozen.thaw()
        await asyncio.sleep(lease / 3)
    (tmp_path / "gate.1").touch()

    assert await handle.result(timeout=30) == {"text": "from 1 done", "run": 1}
    job = await handle.snapshot()
    assert job is not None
    assert job.stalled == 0
    await audit(server, queue, [handle.id], workers.all)


async def test_a_job_cancelled_while_its_last_chunk_is_on_its_way_frees_its_slot(
    queue: Queue, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(_glide_setup, "REQUEST_TIMEOUT_MS", 400)
    lost = proxy.lose_reply(b"stream_append", ending="hang")

    async def handler(job):
        if job.name == "short":
            return "ran"
        await job.stream_chunk("content", "x")
        await asyncio.to_thread(lost.wait)
        return None

    async with Worker(queue.name, handler, connection=proxy.url):
        handle = await queue.add("long")
        await asyncio.to_thread(lost.wait)
        assert await handle.cancel() == "requested"
        with pytest.raises(JobCancelled):
            await handle.result(timeout=30)

        assert await (await queue.add("short")).result(timeout=30) == "ran"
