"""A call that breaks off after any of its writes leaves a queue that the same call, repeated, puts right.

The test build breaks a call after its n-th write. For every n: break, repeat, and compare with a call that did not
break: the answer, the jobs, and no key that nobody owns.
"""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from tests.harness.fsck import fsck
from tests.harness.servers import ValkeyServer
from tests.lua.engine import Broken, Engine, outcome, read_turn
from tests.model.broken_calls import (
    LONG,
    SCENARIOS,
    Call,
    Prepare,
    cancel_waiting,
    finish_and_claim_the_same,
    retry_failed,
    send,
    wait,
)

MAX_WRITES = 200


@pytest.mark.parametrize("prepare", SCENARIOS, ids=lambda prepare: prepare.__name__)
def test_broken_call_is_put_right_by_its_repeat(server: ValkeyServer, prepare: Prepare):
    whole = _queue(server, "whole")
    call = prepare(whole)
    expected = _answer(call, send(whole, call))
    _settle(whole, call)
    assert fsck(server, "whole", now=whole.now()) == []

    for n in itertools.count():
        assert n < MAX_WRITES
        engine = _queue(server, f"broken-{n}")
        call = prepare(engine)
        try:
            engine.call(call.function, **call.args, fail_after=n)
        except Broken:
            pass
        else:
            break
        answer = _answer(call, engine.call(call.function, **call.args, repeat=True))
        _settle(engine, call)

        assert fsck(server, f"broken-{n}", now=engine.now()) == [], f"after {n} writes"
        assert _facts(engine) == _facts(whole), f"after {n} writes"
        assert answer == expected, f"after {n} writes"
    assert n > 0, "this call writes"


@pytest.mark.faults
@pytest.mark.parametrize("prepare", SCENARIOS, ids=lambda prepare: prepare.__name__)
def test_broken_call_that_is_never_repeated_loses_no_job(server: ValkeyServer, prepare: Prepare):
    """Its worker has died as well: what it held is taken back, and every job can still be run to its end."""
    for n in itertools.count():
        assert n < MAX_WRITES
        engine = _queue(server, f"broken-{n}")
        call = prepare(engine)
        try:
            engine.call(call.function, **call.args, fail_after=n)
        except Broken:
            pass
        else:
            break
        before = _ids(engine)

        wait(engine, LONG + 30_000)
        _drain(engine)

        left = {name: ids for name in _LIVE if (ids := engine.index(name))}
        assert set(left) <= {"suspended", "waiting_children"}, f"after {n} writes: {left}"
        for id in before:
            _assert_is_over(engine, id, f"{id} after {n} writes")

        _wait_days(engine, 8)
        left_over = _ids(engine) - {id for ids in left.values() for id in ids}
        assert not left_over, f"after {n} writes"


def test_claim_that_broke_off_is_taken_again_with_its_outcome(server: ValkeyServer):
    for n in itertools.count():
        engine = _queue(server, f"same-{n}")
        call = finish_and_claim_the_same(engine)
        try:
            engine.call(call.function, **call.args, fail_after=n)
        except Broken:
            pass
        else:
            break
        reply = read_turn(engine.call(call.function, **call.args, repeat=True))

        assert reply.ids == ["a"]
        assert engine.job("a")["token"] == reply.token
        assert engine.where("a") == ["active"]
        assert fsck(server, f"same-{n}", now=engine.now()) == []


def test_job_that_a_broken_call_has_ended_is_not_given_out(server: ValkeyServer):
    ended = 0
    for n in range(MAX_WRITES):
        engine = _queue(server, f"ended-{n}")
        call = cancel_waiting(engine)
        try:
            engine.call(call.function, **call.args, fail_after=n)
        except Broken:
            pass
        else:
            break
        if engine.job("a")["state"] == "cancelled":
            ended += 1
            assert engine.turn(want=1).claims == []
            assert engine.where("a") == ["cancelled"]
    assert ended


def test_list_of_ended_jobs_is_trimmed_without_those_that_run_again(server: ValkeyServer):
    retried = 0
    for n in range(MAX_WRITES):
        engine = _queue(server, f"again-{n}")
        call = retry_failed(engine)
        try:
            engine.call(call.function, **call.args, fail_after=n)
        except Broken:
            pass
        else:
            break
        if engine.job("a")["state"] == "waiting":
            retried += 1
            engine.advance(8 * 86_400_000)
            engine.turn("w9")
            assert engine.turn(want=1).ids == ["a"]
    assert retried


# -- helpers ---------------------------------------------------------------------------------------------------------

_LIVE = ("waiting", "suspects", "delayed", "active", "suspended", "waiting_children")


def _queue(server: ValkeyServer, name: str) -> Engine:
    engine = Engine(server, name)
    engine.load()
    return engine


def _drain(engine: Engine) -> None:
    """A worker does all there is to do."""
    engine.call("queue_pause", paused=False)
    for _ in range(60):
        reply = engine.turn("w7", want=10)
        engine.turn("w7", done=[outcome(claim) for claim in reply.claims])
        if not reply.claims and not any(
            engine.index(name) for name in ("waiting", "suspects", "delayed", "active")
        ):
            return
        wait(engine, 1000)
    raise AssertionError("not drained")


def _settle(engine: Engine, call: Call) -> None:
    if call.trims:
        engine.add("later", priority=0)
        engine.turn("w7", done=[outcome(engine.claim("w7"))], keep_completed="1:")


def _ids(engine: Engine) -> set[str]:
    """Ids of the jobs that have any key which lasts."""
    names = (name for name in engine.names() if name.startswith("job:") and engine.ttl(name) == -1)
    return {name.split(":")[1] for name in names}


def _wait_days(engine: Engine, days: int) -> None:
    engine.advance(days * 86_400_000)
    for _ in range(3):
        engine.turn("w9")
        engine.advance(1000)


def _assert_is_over(engine: Engine, id: str, what: str) -> None:
    job = engine.job(id)
    if job.get("removed"):
        assert engine.ttl(f"job:{id}") > 0, what
    elif job:
        # A job that ran again may still be listed under the ending that broke off, until that list is trimmed.
        assert job["state"] in engine.where(id), what
        assert job["state"] not in ("waiting", "delayed", "active"), what


def _answer(call: Call, reply: Any) -> Any:
    """A reply without what differs from call to call."""
    if call.function == "turn":
        turn = read_turn(reply)
        # "a" says that the outcome was applied by the call that broke off.
        return turn.codes.replace("a", "o"), [
            (claim.id, claim.attempt, claim.data) for claim in turn.claims
        ]
    if call.function == "job_add":
        return reply.decode().replace("r", "a")
    if call.function == "stream_append":
        return None  # it carries ids of chunks; what was appended is compared with the jobs
    if call.function in ("job_usage", "job_update", "job_signal", "child_ended"):
        return None  # 0 says that it was applied by the call that broke off
    if call.function == "job_wait":
        return reply[0]  # the time left is an instant, too
    return reply


def _facts(engine: Engine) -> dict[str, Any]:
    """What the queue holds, without instants and tokens."""
    return {id: _job_facts(engine, id) for id in sorted(_ids(engine))} | {
        "workers": sorted(engine.index("workers")),
        "expiring": sorted(engine.index("expiring")),
        "paused": engine.server.cmd("HGET", f"{engine.root}:meta", "paused"),
    }


_VOLATILE = {
    "token",
    "created_at",
    "started_at",
    "finished_at",
    "expires_at",
    "last_chunk",
    "stream_bytes",
    "place",
    "run",
    "chunk",
    "satellites",
    "started_run",
    "update",
    "wait_since",
    "commit",
    "wait_until",
    "waits",
}


def _fields(engine: Engine, id: str, satellite: str) -> dict[bytes, bytes]:
    flat = engine.server.cmd("HGETALL", f"{engine.root}:job:{id}:{satellite}")
    # The deadline of a wait that goes on is an instant.
    return {
        name: value for name, value in zip(flat[::2], flat[1::2], strict=True) if name[:1] != b"?"
    }


def _mail(engine: Engine, id: str) -> list[bytes]:
    """Messages that may still be taken: not those that a break left beside the entry that took them."""
    box = _fields(engine, id, "mailbox")
    names = [b"m:" + n for n in box.get(b"waiting", b"").split(b",") if n]
    return [box[name] for name in names if name in box and name + b":to" not in box]


def _job_facts(engine: Engine, id: str) -> dict[str, Any]:
    fields = {name: value for name, value in engine.job(id).items() if name not in _VOLATILE}
    usage = engine.server.cmd("HGETALL", f"{engine.root}:job:{id}:usage")
    return {
        **fields,
        "where": engine.where(id),
        "chunks": [(chunk["type"], chunk["content"], chunk["seq"]) for chunk in engine.chunks(id)],
        "errors": engine.server.cmd("LRANGE", f"{engine.root}:job:{id}:errors", 0, -1),
        "usage": sorted(zip(usage[::2], usage[1::2], strict=True)),
        "steps": _fields(engine, id, "steps"),
        "children": _fields(engine, id, "children"),
        "mail": _mail(engine, id),
        "log": set(engine.server.cmd("LRANGE", f"{engine.root}:job:{id}:log", 0, -1)),
    }
