"""Networks that cut, swallow, delay and lose: each job once, each call once, no live work taken away."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from glidemq_core import ConnectionLost, JobCancelled, NewJob, Queue, Worker, _glide_setup
from glidemq_core._turns import Turns, TurnSettings
from tests.harness.auditor import all_events, audit
from tests.harness.processes import eventually
from tests.harness.proxy import Ending, Proxy, Rule
from tests.harness.servers import Connection, ReplyError, ValkeyServer
from tests.harness.workers import Workers, until_started

pytestmark = pytest.mark.faults

TIMEOUT_MS = 400


@pytest.fixture(autouse=True)
def short_timeouts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lost replies are asked for again after 0.4 s, in this process."""
    monkeypatch.setattr(_glide_setup, "REQUEST_TIMEOUT_MS", TIMEOUT_MS)


@pytest.fixture
async def far_queue(queue: Queue, proxy: Proxy) -> AsyncIterator[Queue]:
    """The same queue, behind the network that fails."""
    async with Queue(queue.name, connection=proxy.url) as opened:
        assert (await opened.counts())["waiting"] == 0  # connected
        yield opened


def cut(proxy: Proxy) -> None:
    """Break the network between the proxy's clients and the server, until `heal`."""
    proxy.refuse = True
    proxy.reset_all()


def heal(proxy: Proxy) -> None:
    proxy.refuse = False


def lose(proxy: Proxy, call: str, ending: Ending) -> Rule:
    return proxy.lose_reply(f"glidemq_1_{call}".encode(), ending=ending)


endings = pytest.mark.parametrize("ending", ["cut", "hang"])


# -- replies that are lost after the server has applied the call (each is asked for again) ---------------------------


@endings
async def test_an_add_whose_reply_is_lost_adds_one_job(
    server: ValkeyServer, far_queue: Queue, workers: Workers, proxy: Proxy, ending: Ending
):
    rule = lose(proxy, "job_add", ending)

    handles = [
        await far_queue.add("echo", 1),
        await far_queue.add("echo", 2, job_id="mine"),
        *await far_queue.add_many([NewJob(name="echo", data=3), NewJob(name="echo", data=4)]),
    ]

    assert rule.count == 1
    assert [handle.is_duplicate for handle in handles] == [False] * 4
    assert (await far_queue.counts())["waiting"] == 4
    workers.start()
    assert [await handle.result(timeout=30) for handle in handles] == [1, 2, 3, 4]
    await audit(server, far_queue, [handle.id for handle in handles], workers.all)


@pytest.mark.parametrize("own_id", ["mine", None])
@pytest.mark.parametrize("how", ["at its end", "by hand"])
async def test_an_add_whose_job_is_gone_before_the_repeat_is_not_run_again(
    queue: Queue, workers: Workers, proxy: Proxy, how: str, own_id: str | None
):
    worker = workers.start()
    await worker.until("up")
    async with Queue(queue.name, connection=proxy.url) as far_queue:
        await far_queue.counts()
        rule = lose(proxy, "job_add", "hang")
        adding = asyncio.create_task(
            far_queue.add("echo", 1, job_id=own_id, remove_on_complete=how == "at its end")
        )
        id = (await worker.until("end"))["job"]
        assert await queue.result(id, timeout=30) == 1
        if how == "by hand":
            await queue.remove(id)
        handle = await adding

    assert (rule.count, handle.id, handle.is_duplicate) == (1, id, False)
    await (await queue.add("echo", "after")).result(timeout=30)
    assert len(worker.noted("start", job=id)) == 1
    assert sum((await queue.counts()).values()) == 1


@endings
async def test_turns_whose_replies_are_lost_run_each_job_once(
    server: ValkeyServer, queue: Queue, proxy: Proxy, ending: Ending
):
    ran: Counter[str] = Counter()
    rules: list[Rule] = []

    async def handler(job):
        ran[job.id] += 1
        if sum(ran.values()) in (5, 10, 15):
            rules.append(lose(proxy, "turn", ending))
        await asyncio.sleep(0.01)
        return job.data

    handles = [await queue.add("echo", i) for i in range(20)]
    rules.append(lose(proxy, "turn", ending))
    async with Worker(queue.name, handler, connection=proxy.url, concurrency=3):
        assert [await handle.result(timeout=30) for handle in handles] == list(range(20))
        await audit(server, queue, [handle.id for handle in handles])

    assert sum(rule.count for rule in rules) >= 3
    assert [ran[handle.id] for handle in handles] == [1] * 20
    assert [(await handle.snapshot()).run for handle in handles] == [1] * 20


@endings
async def test_claim_whose_reply_is_lost_brings_again_what_its_job_remembers(
    server: ValkeyServer, queue: Queue, proxy: Proxy, ending: Ending
):
    paid: list[str] = []
    asked = proxy.watch(b"glidemq_1_job_journal")

    async def handler(job):
        if job.name == "echo":
            return job.data
        step = await job.step("pay", paid.append, job.id)
        return [step, (await job.wait_for_signal("go")).data]

    handles = await queue.add_many([NewJob(name="n") for _ in range(20)])
    async with Worker(queue.name, handler, connection=proxy.url, concurrency=20):
        await eventually(lambda: _are_suspended(queue, 20))
    rule = lose(proxy, "turn", ending)
    for n, handle in enumerate(handles):
        await handle.signal("go", n)

    async with Worker(queue.name, handler, connection=proxy.url, concurrency=20):
        assert [await handle.result(timeout=30) for handle in handles] == [
            [None, n] for n in range(20)
        ]
        await audit(server, queue, [handle.id for handle in handles])

    assert (rule.count, asked.count) == (1, 0)
    assert Counter(paid) == Counter(handle.id for handle in handles)
    assert [(await handle.snapshot()).run for handle in handles] == [2] * 20


async def _are_suspended(queue: Queue, count: int) -> bool:
    return (await queue.counts())["suspended"] == count


@endings
async def test_chunks_whose_replies_are_lost_are_in_the_stream_once(
    server: ValkeyServer, queue: Queue, proxy: Proxy, ending: Ending
):
    rule = lose(proxy, "stream_append", ending)

    async def handler(job):
        if job.name == "echo":
            return job.data
        said = ""
        for i in range(60):
            await job.stream_chunk("content", f"{i} ")
            said += f"{i} "
            await asyncio.sleep(0.005)
        return {"text": said}

    async with Worker(queue.name, handler, connection=proxy.url, concurrency=2):
        handles = [await queue.add("stream") for _ in range(2)]
        for handle in handles:
            await handle.result(timeout=30)
        await audit(server, queue, [handle.id for handle in handles])

    assert rule.count == 1


@endings
async def test_what_a_handler_reports_counts_once_though_replies_are_lost(
    server: ValkeyServer, queue: Queue, proxy: Proxy, ending: Ending
):
    rules = [lose(proxy, call, ending) for call in ("job_usage", "job_update")]

    async def handler(job):
        if job.name == "report":
            await job.report_usage(model="m", tokens={"input": 3}, costs={"total": "0.25"})
            await job.log("once")
        return job.data

    async with Worker(queue.name, handler, connection=proxy.url):
        handle = await queue.add("report")
        await handle.result(timeout=30)
        await audit(server, queue, [handle.id])

    assert [rule.count for rule in rules] == [1, 1]
    job = await handle.snapshot()
    assert job is not None
    assert (job.usage.total_tokens, len(job.usage.calls), str(job.usage.total_cost)) == (
        3,
        1,
        "0.25",
    )
    assert (await queue.usage_summary()).calls == 1
    assert await queue.log(handle.id) == ["once"]


@endings
async def test_a_cancel_whose_reply_is_lost_ends_the_job_once(
    server: ValkeyServer, queue: Queue, far_queue: Queue, proxy: Proxy, ending: Ending
):
    handle = await queue.add("echo")
    rule = lose(proxy, "job_cancel", ending)

    assert await far_queue.cancel(handle.id) == "cancelled"

    assert rule.count == 1
    assert (await handle.snapshot()).state == "cancelled"
    assert all_events(server, queue).count(("cancelled", handle.id)) == 1


@endings
async def test_a_cancel_of_a_running_job_whose_reply_is_lost_stops_it(
    far_queue: Queue, workers: Workers, proxy: Proxy, ending: Ending, tmp_path: Path
):
    handle = await far_queue.add("gate", {"gate": str(tmp_path / "never")})
    worker = workers.start()
    await worker.until("waiting")
    rule = lose(proxy, "job_cancel", ending)

    # By the time of the repeat it may have ended.
    assert await handle.cancel() in ("requested", "cancelled")

    assert rule.count == 1
    await worker.until("end", how="CancelledError")
    with pytest.raises(JobCancelled):
        await handle.result(timeout=30)


class UnansweringClient:
    """Answers every turn but the first."""

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self.asked = asyncio.Event()

    async def call(self, _name: str, _root: str, args: dict[str, Any]) -> list[bytes]:
        self.numbers.append(args["turn"])
        self.asked.set()
        if args["turn"] == 1:
            await asyncio.Event().wait()
        return [msgspec.msgpack.encode(["", "", [], 0, 0, 1])]

    def saw_revision(self, _revision: int) -> None:
        pass


async def test_no_turn_runs_ahead_of_an_unanswered_one_beyond_what_the_server_remembers():
    client = UnansweringClient()
    turns = Turns(client, "root", TurnSettings(worker="w", lease=1, max_stalled=3))  # type: ignore[arg-type]
    first = asyncio.create_task(turns.take([], [], want=1, suspects=0))
    await client.asked.wait()

    async def run_ahead() -> None:
        while True:
            await turns.take([], [], want=1, suspects=0)
            await asyncio.sleep(0)

    ahead = asyncio.create_task(run_ahead())
    await eventually(lambda: len(client.numbers) == 8)
    await asyncio.wait({ahead}, timeout=0.2)

    # A number of 1 + 8 would make the server forget turn 1 (lua/lib/turns.lua).
    assert client.numbers == [1, 2, 3, 4, 5, 6, 7, 8]
    for task in (ahead, first):
        task.cancel()


class LosingClient(UnansweringClient):
    """Has no reply for the first two tries."""

    def __init__(self) -> None:
        super().__init__()
        self.repeats: list[bool] = []

    async def call(self, name: str, root: str, args: dict[str, Any]) -> list[bytes]:
        self.repeats.append("repeat" in args)
        if len(self.repeats) < 3:
            self.numbers.append(args["turn"])
            raise ConnectionLost("no reply", outcome="unknown")
        return await super().call(name, root, {**args, "turn": args["turn"] + 1})


async def test_a_turn_that_the_client_has_given_up_is_repeated_as_the_same_turn():
    client = LosingClient()
    turns = Turns(client, "root", TurnSettings(worker="w", lease=1, max_stalled=3))  # type: ignore[arg-type]

    await turns.take([], [], want=1, suspects=0)

    assert client.numbers == [1, 1, 2]  # the last is 1 + 1, by the double
    assert client.repeats == [False, True, True]


# -- connections that break -------------------------------------------------------------------------------------------


async def test_a_cut_shorter_than_the_lease_changes_nothing(
    server: ValkeyServer, queue: Queue, workers: Workers, proxy: Proxy, tmp_path: Path
):
    handle = await queue.add("gate", {"gate": str(tmp_path / "gate"), "chunks": True})
    far = workers.start(url=proxy.url, lock_duration=4)
    await far.until("waiting")
    near = workers.start(lock_duration=4)
    await near.until("up")

    cut(proxy)
    await asyncio.sleep(1)
    heal(proxy)
    await asyncio.sleep(3.5)
    (tmp_path / "gate.1").touch()

    assert await handle.result(timeout=30) == {"text": "from 1 done", "run": 1}
    assert (await handle.snapshot()).stalled == 0
    await audit(server, queue, [handle.id], workers.all)


async def test_a_cut_longer_than_the_lease_moves_the_job_to_another_worker(
    server: ValkeyServer, queue: Queue, workers: Workers, proxy: Proxy, tmp_path: Path
):
    handle = await queue.add("gate", {"gate": str(tmp_path / "gate"), "chunks": True})
    far = workers.start(url=proxy.url, lock_duration=1)
    await far.until("waiting")
    await until_started(server, queue.name, [handle.id])
    (tmp_path / "gate.2").touch()

    cut(proxy)
    near = workers.start()
    taken = await near.until("start")
    stopped = await far.until("end")
    heal(proxy)

    assert await handle.result(timeout=30) == {"text": "from 2 done", "run": 2}
    assert stopped["how"] == "CancelledError"
    # The cut worker stops its run by its own clock, before or just after another may have it.
    assert stopped["t"] < taken["t"] + 2
    assert (await handle.snapshot()).stalled == 1
    near.kill()
    await audit(server, queue, [handle.id])  # its last step: the healed worker runs a new job
    assert len(far.noted("start")) == 2


async def test_a_half_open_connection_is_noticed_and_replaced(
    server: ValkeyServer, queue: Queue, workers: Workers, proxy: Proxy, tmp_path: Path
):
    held = await queue.add("gate", {"gate": str(tmp_path / "gate")})
    far = workers.start(
        url=proxy.url, request_timeout_ms=TIMEOUT_MS, concurrency=2, lock_duration=6
    )
    await far.until("waiting")
    await until_started(server, queue.name, [held.id])
    swallowed = [
        proxy.lose_request(word, ending="hang")
        for word in (b"glidemq_1_turn", b"_job_beat", b"BLPOP")
    ]
    for rule in swallowed:
        await asyncio.to_thread(rule.wait)

    new = await queue.add("echo", "through")

    active = f"glidemq:{{{queue.name}}}:active"
    deadline = float(server.cmd("ZSCORE", active, held.id))
    await eventually(
        lambda: float(server.cmd("ZSCORE", active, held.id)) > deadline, 6, "a renewal"
    )
    assert await new.result(timeout=30) == "through"
    (tmp_path / "gate.1").touch()
    assert await held.result(timeout=30) == {"run": 1}
    assert (await held.snapshot()).stalled == 0
    await audit(server, queue, [held.id, new.id], workers.all)


# -- slow ones ----------------------------------------------------------------------------------------------------------


async def test_a_slow_narrow_network_loses_no_lease_and_no_chunk(
    server: ValkeyServer, queue: Queue, workers: Workers, proxy: Proxy
):
    proxy.delay, proxy.rate = 0.3, 50_000
    far = workers.start(url=proxy.url, concurrency=10)

    handles = [await queue.add("stream", {"chunks": 100, "pause": 0.01}) for _ in range(3)]
    handles += [await queue.add("echo", "x" * 1000) for _ in range(20)]
    for handle in handles:
        await handle.result(timeout=40)

    assert [(await handle.snapshot()).run for handle in handles] == [1] * 23
    proxy.delay, proxy.rate = 0.0, None
    await audit(server, queue, [handle.id for handle in handles], [far])


async def test_a_server_that_stands_still_again_and_again_moves_no_job(
    server: ValkeyServer, queue: Queue, workers: Workers, tmp_path: Path
):
    data = {"gate": str(tmp_path / "gate"), "chunks": True}
    handles = [await queue.add("gate", data) for _ in range(10)]
    both = [workers.start(concurrency=5, lock_duration=8) for _ in range(2)]
    for worker in both:
        await worker.until("waiting", count=5)
    sleeper = Connection(server.port)

    for _ in range(4):
        await asyncio.to_thread(sleeper.cmd, "DEBUG", "SLEEP", 2)
        await asyncio.sleep(0.2)
    sleeper.close()
    (tmp_path / "gate.1").touch()

    for handle in handles:
        assert (await handle.result(timeout=30))["run"] == 1
    assert [(await handle.snapshot()).stalled for handle in handles] == [0] * 10
    await audit(server, queue, [handle.id for handle in handles], workers.all)


async def test_a_server_that_refuses_writes_for_a_while_is_waited_for(queue_name: str):
    finish = asyncio.Event()

    async def handler(job):
        await finish.wait()
        return job.data

    with ValkeyServer() as own:
        queue, worker = (
            Queue(queue_name, connection=own.url),
            Worker(queue_name, handler, connection=own.url),
        )
        async with queue, worker:
            handle = await queue.add("echo", "kept")
            started = f"glidemq:{{{queue_name}}}:job:{handle.id}"
            await eventually(lambda: own.cmd("HGET", started, "started_run") is not None)
            (own.directory / "dump.rdb").mkdir()  # so that no snapshot can be written
            own.cmd("CONFIG", "SET", "save", "3600 1")
            own.cmd("BGSAVE")
            await eventually(lambda: refuses_writes(own))

            finish.set()
            adding = asyncio.create_task(queue.add("echo", "later"))
            await asyncio.sleep(1)
            assert not adding.done()
            own.cmd("CONFIG", "SET", "save", "")

            assert await handle.result(timeout=30) == "kept"
            assert await (await adding).result(timeout=30) == "later"
            assert (await handle.snapshot()).run == 1


def refuses_writes(server: ValkeyServer) -> bool:
    try:
        server.cmd("SET", "probe", 1)
    except ReplyError as error:
        return "MISCONF" in str(error)
    return False
