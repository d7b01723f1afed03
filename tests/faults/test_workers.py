"""Worker processes that are killed or busy: no job is lost, none ends twice, none that lives is taken away."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from glidemq_core import JobFailed, JobHandle, NewJob, Queue
from glidemq_core._failpoints import POINTS
from tests.harness.auditor import audit
from tests.harness.servers import ValkeyServer
from tests.harness.workers import Workers, until_lost, until_started

pytestmark = pytest.mark.faults

LEASE = 1
PATIENT = {"lock_duration": LEASE, "max_stalled": 100}
# Of those that take over: none of their own leases may be lost, however slow the machine is.
HEIR = {"max_stalled": 100}


async def results(queue: Queue, handles: Sequence[JobHandle], timeout: float = 30) -> list[object]:
    async with asyncio.timeout(timeout):
        return await asyncio.gather(*(queue.result(handle.id) for handle in handles))


def ids_of(handles: Sequence[JobHandle]) -> list[str]:
    return [handle.id for handle in handles]


async def test_thirty_kills_at_random_moments_lose_no_job(
    server: ValkeyServer, queue: Queue, workers: Workers, record_property
):
    seed = random.randrange(10**6)
    record_property("seed", seed)
    rng = random.Random(seed)
    handles = await queue.add_many(
        [NewJob(name="stream", data={"chunks": 10, "pause": 0.03}) for _ in range(60)]
    )
    alive = [workers.start(concurrency=5, **PATIENT) for _ in range(2)]

    for i in range(30):
        victim = alive[i % 2]
        await victim.until("up")
        await asyncio.sleep(rng.uniform(0.0, 0.2))
        victim.kill()
        alive[i % 2] = workers.start(concurrency=5, **PATIENT)

    await results(queue, handles)
    await audit(server, queue, ids_of(handles), workers.all)


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("point", POINTS)
async def test_death_beside_any_call_of_a_worker_loses_no_job(
    server: ValkeyServer, queue: Queue, workers: Workers, point: str, count: int
):
    handles = await queue.add_many(
        [NewJob(name="write", data={"rounds": 4, "pause": 0.1}) for _ in range(6)]
    )
    doomed = workers.start(concurrency=2, env={"GLIDEMQ_FAILPOINT": f"{point}:{count}"}, **PATIENT)

    assert await doomed.until_ended() == -9
    workers.start(concurrency=6, **HEIR)

    await results(queue, handles)
    await audit(server, queue, ids_of(handles), workers.all)
    for handle in handles:
        job = await handle.snapshot()
        assert job is not None
        # Every call is booked once; only the one that was on its way when the process died may be missing.
        runs = job.run + losses_unstarted(server, queue, job.id)
        assert len(job.usage.calls) in range(4 * job.run - 4, 4 * runs + 1)
        assert job.usage.total_tokens == 7 * len(job.usage.calls)


def losses_unstarted(server: ValkeyServer, queue: Queue, id: str) -> int:
    """How many claims of a job were lost whose start nobody had reported; two at most are counted."""
    return int(server.cmd("HGET", f"glidemq:{{{queue.name}}}:job:{id}", "lost") or 0)


async def die_after_claiming(workers: Workers, times: int, **settings: object) -> None:
    for _ in range(times):
        doomed = workers.start(env={"GLIDEMQ_FAILPOINT": "turn.after:1"}, **settings)
        assert await doomed.until_ended() == -9


async def test_deaths_between_claim_and_start_lose_no_job(
    server: ValkeyServer, queue: Queue, workers: Workers
):
    handles = await queue.add_many([NewJob(name="echo", data=i) for i in range(60)])

    await die_after_claiming(workers, 12, concurrency=3, lock_duration=0.3, max_stalled=100)
    workers.start(concurrency=10, **HEIR)

    assert await results(queue, handles) == list(range(60))
    await audit(server, queue, ids_of(handles), workers.all)


async def test_a_claim_that_is_lost_before_its_start_is_no_stall(
    server: ValkeyServer, queue: Queue, workers: Workers
):
    handle = await queue.add("echo", 1)

    for _ in range(2):
        await die_after_claiming(workers, 1, lock_duration=0.3, max_stalled=0)
        await until_lost(server, queue.name, handle.id)
    workers.start(max_stalled=0)

    assert await handle.result(timeout=30) == 1
    job = await handle.snapshot()
    assert (job.stalled, job.run) == (0, 1)
    assert losses_unstarted(server, queue, handle.id) == 2
    await audit(server, queue, [handle.id], workers.all)


async def test_all_ten_running_jobs_of_a_killed_worker_run_again(
    server: ValkeyServer, queue: Queue, workers: Workers, tmp_path: Path
):
    opened = {"gate": str(tmp_path / "gate")}
    handles = await queue.add_many(
        [
            NewJob(name="gate", data=opened, lifo=i % 3 == 1, priority=1000 - i % 2)
            for i in range(10)
        ]
    )
    doomed = workers.start(concurrency=10, lock_duration=LEASE)
    await until_started(server, queue.name, ids_of(handles))
    doomed.kill()
    (tmp_path / "gate.2").touch()
    heir = workers.start(concurrency=10)

    answers = await results(queue, handles)

    assert [answer["run"] for answer in answers] == [2] * 10
    assert [(await handle.snapshot()).stalled for handle in handles] == [1] * 10
    assert [(await handle.snapshot()).attempt for handle in handles] == [1] * 10
    first = await heir.until("start")
    assert first["t"] - doomed.ended_at < LEASE + 4
    await audit(server, queue, ids_of(handles), workers.all)


async def test_a_job_that_loses_its_lease_too_often_fails_as_stalled(
    server: ValkeyServer, queue: Queue, workers: Workers, tmp_path: Path
):
    handle = await queue.add("gate", {"gate": str(tmp_path / "never")})
    for _ in range(2):
        doomed = workers.start(lock_duration=LEASE, max_stalled=1)
        await doomed.until("start")
        await until_started(server, queue.name, [handle.id])
        doomed.kill()
    workers.start(max_stalled=1)

    with pytest.raises(JobFailed) as caught:
        await handle.result(timeout=30)

    assert caught.value.reason == "stalled"
    await audit(server, queue, [handle.id], workers.all, failed=[handle.id])


async def test_a_blocked_event_loop_keeps_its_lease(
    server: ValkeyServer, queue: Queue, workers: Workers
):
    handle = await queue.add("spin", {"seconds": 3 * LEASE})
    busy = workers.start(lock_duration=LEASE)
    await busy.until("blocking")
    workers.start(lock_duration=LEASE)

    assert await handle.result(timeout=30) == {"run": 1}
    assert (await handle.snapshot()).stalled == 0
    await audit(server, queue, [handle.id], workers.all)


async def test_an_event_loop_that_is_stuck_for_too_long_is_given_up(
    server: ValkeyServer, queue: Queue, workers: Workers
):
    handle = await queue.add("spin", {"seconds": 5})
    stuck = workers.start(lock_duration=LEASE, max_loop_stall=1)
    await stuck.until("blocking")
    heir = workers.start()

    second = await heir.until("blocking")
    assert second["run"] == 2
    assert await handle.result(timeout=30) == {"run": 2}
    assert second["t"] < (await stuck.until("unblocked"))["t"]
    await audit(server, queue, [handle.id])
    assert stuck.said().count("stuck") < 20


async def test_a_job_with_a_long_lease_of_its_own_outlives_a_silent_worker(
    server: ValkeyServer, queue: Queue, workers: Workers
):
    handle = await queue.add("spin", {"seconds": 3}, lock_duration=60)
    silent = workers.start(lock_duration=LEASE, max_loop_stall=0.2)
    await silent.until("blocking")
    workers.start(lock_duration=LEASE)

    assert await handle.result(timeout=30) == {"run": 1}
    await audit(server, queue, [handle.id], workers.all)


async def test_workers_with_short_and_long_leases_leave_each_other_alone(
    server: ValkeyServer, queue: Queue, workers: Workers
):
    handles = await queue.add_many([NewJob(name="wait", data={"seconds": 2}) for _ in range(12)])
    for lease in (LEASE, 60):
        workers.start(concurrency=3, lock_duration=lease)

    assert await results(queue, handles) == [{"run": 1}] * 12
    await audit(server, queue, ids_of(handles), workers.all)
