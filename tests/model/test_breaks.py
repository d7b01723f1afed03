"""A call that breaks off after any of its writes leaves a queue that the same call, repeated, puts right.

The test build breaks a call after its n-th write. For every n: break, repeat, and compare with a call that did not
break: the answer, the jobs, and no key that nobody owns.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from tests.harness.fsck import fsck
from tests.harness.servers import ValkeyServer
from tests.lua.engine import (
    Broken,
    Claim,
    Engine,
    error_text,
    outcome,
    read_turn,
    report,
    turn_args,
)

LONG = 600_000
MAX_WRITES = 200


@dataclass(frozen=True, slots=True)
class Call:
    """A function and its arguments, ready to be sent any number of times.

    `trims`: it removes what is over a number; what a break leaves is trimmed by the next job that ends.
    """

    function: str
    args: dict[str, Any]
    trims: bool = False


Prepare = Callable[[Engine], Call]


def _chunks(count: int, first: int = 1) -> list[list[str]]:
    return [["content", f"piece {first + i}"] for i in range(count)]


def _append(engine: Engine, *parts: tuple[Claim, int, int]) -> Call:
    lines = [
        [claim.id, claim.token, claim.run, first, _chunks(count, first)]
        for claim, first, count in parts
    ]
    return Call("stream_append", {"parts": lines})


def _send(engine: Engine, call: Call) -> Any:
    return engine.call(call.function, **call.args)


def _turn(*, trims: bool = False, **more: object) -> Call:
    return Call("turn", turn_args("w1", 50, lease_ms=LONG, **more), trims)


# -- what is broken off -------------------------------------------------------------------------------------------


def add_plain(engine: Engine) -> Call:
    jobs = [{"id": id, "name": "job", "data": "{}"} for id in "abc"]
    return Call("job_add", {"jobs": jobs, "nonce": "x"})


def add_with_options(engine: Engine) -> Call:
    options = {"name": "job", "priority": 7, "lifo": True, "keep_failed": "0:", "options": "{}"}
    jobs = [
        {"id": "a", "delay_ms": 1000, "ttl_ms": 5000, **options},
        {"id": "b", "ttl_ms": 5000, "custom": True, **options},
        {"id": "c", "custom": True, **options},
    ]
    return Call("job_add", {"jobs": jobs, "nonce": "x"})


def add_over_tombstone(engine: Engine) -> Call:
    engine.ended("a", "completed", keep_completed="0:", custom=True)
    return Call("job_add", {"jobs": [{"id": "a", "name": "job", "custom": True}], "nonce": "x"})


def claim_plain(engine: Engine) -> Call:
    engine.add("a", "b", "c")
    return _turn(want=2)


def claim_suspect_and_expired(engine: Engine) -> Call:
    _lose(engine, "a", is_started=True)
    engine.add("b", ttl_ms=100)
    engine.add("c")
    engine.advance(150)
    return _turn(want=5)


def finish_each_kind(engine: Engine) -> Call:
    kinds = ["completed", "failed", "cancelled", "retry", "delayed", "suspended", "released"]
    engine.add(*kinds)
    claims = _claims(engine, len(kinds))
    extras: dict[str, tuple[str | None, object]] = {
        "completed": ('{"x":1}', None),
        "failed": (None, {"reason": "error", "error": error_text()}),
        "retry": (None, {"delay_ms": 500, "error": error_text()}),
        "delayed": (None, {"delay_ms": 500, "why": "throttled"}),
    }
    return _turn(done=[outcome(claims[kind], kind, *extras.get(kind, ())) for kind in kinds])


def finish_and_remove_at_once(engine: Engine) -> Call:
    engine.add("a", "b", "c", keep_completed="0:", keep_failed="0:")
    claims = _claims(engine, 3)
    for claim in claims.values():
        _own_everything(engine, claim)
    engine.call("job_cancel", id="c")
    failed = (None, {"reason": "error", "error": error_text()})
    done = [outcome(claims["a"]), outcome(claims["b"], "failed", *failed), outcome(claims["c"])]
    return _turn(done=done)


def finish_with_tail(engine: Engine) -> Call:
    claim = engine.active("a")
    _send(engine, _append(engine, (claim, 1, 2)))
    return _turn(done=[outcome(claim, "completed", "1", {"tail": [3, _chunks(3, 3)]})])


def finish_with_first_chunks_as_tail(engine: Engine) -> Call:
    claim = engine.active("a")
    return _turn(done=[outcome(claim, "retry", None, {"delay_ms": 5, "tail": [1, _chunks(2)]})])


def finish_over_the_kept_number(engine: Engine) -> Call:
    for id in "abc":
        engine.ended(id, "completed")
    claim = engine.active("d", keep_completed="1:700000")
    _own_everything(engine, claim)
    return _turn(done=[outcome(claim)], trims=True)


def finish_and_claim_the_same(engine: Engine) -> Call:
    claim = engine.active("a")
    return _turn(want=1, done=[outcome(claim, "delayed", None, {"delay_ms": 0, "why": "turn"})])


def reclaim_lost(engine: Engine) -> Call:
    for id, stalls in (("a", 1), ("b", 0), ("c", 3)):
        engine.add(id)
        claim = engine.claim("w2", max_stalled=9)
        if stalls:
            engine.start(claim, "w2")
    engine.server.cmd("HSET", f"{engine.root}:job:c", "stalled", "3")
    engine.add("d")
    engine.claim("w2", max_stalled=9)
    engine.call("job_cancel", id="d")
    _wait(engine, 3000)
    return _turn()


def promote_and_expire(engine: Engine) -> Call:
    engine.add("a", "b", delay_ms=100)
    engine.add("c", ttl_ms=100)
    engine.add("d", ttl_ms=100, delay_ms=50, keep_failed="0:")
    engine.ended("e", "completed", keep_completed=":100")
    engine.ended("f", "failed", keep_failed=":100")
    _wait(engine, 300)
    return _turn()


def everything_in_one_turn(engine: Engine) -> Call:
    """Outcomes, reclaim, promotion, expiry, retention and claims."""
    for id in ("old1", "old2"):
        engine.ended(id, "completed", priority=0)
    engine.ended("aged", "completed", keep_completed=":100", priority=0)
    engine.add("done", "again", priority=1)
    claims = _claims(engine, 2)
    _own_everything(engine, claims["done"])
    engine.add("due", delay_ms=10, priority=2)
    engine.add("next1", "next2", "next3", priority=3)
    _lose(engine, "lost", is_started=True, is_taken_back=False)
    done = [
        outcome(claims["done"], "completed", "1", {"tail": [3, _chunks(1, 3)]}),
        outcome(claims["again"], "retry", None, {"delay_ms": 50, "error": error_text()}),
    ]
    return _turn(want=3, done=done, keep_completed="1:", trims=True)


def append_first(engine: Engine) -> Call:
    engine.add("a", "b")
    claims = _claims(engine, 2)
    return _append(engine, (claims["a"], 1, 3), (claims["b"], 1, 2))


def append_more(engine: Engine) -> Call:
    claim = engine.active("a")
    _send(engine, _append(engine, (claim, 1, 2)))
    return _append(engine, (claim, 2, 3))


def append_with_reset(engine: Engine) -> Call:
    claim = engine.active("a")
    _send(engine, _append(engine, (claim, 1, 2)))
    engine.finish(claim, "retry", None, {"delay_ms": 0})
    return _append(engine, (engine.claim(), 1, 2))


def cancel_waiting(engine: Engine) -> Call:
    engine.add("a")
    return Call("job_cancel", {"id": "a"})


def cancel_delayed_and_remove(engine: Engine) -> Call:
    claim = engine.active("a", keep_failed="0:")
    _own_everything(engine, claim)
    engine.finish(claim, "retry", None, {"delay_ms": 900, "error": error_text()})
    return Call("job_cancel", {"id": "a"})


def cancel_running(engine: Engine) -> Call:
    engine.active("a")
    return Call("job_cancel", {"id": "a"})


def cancel_suspect(engine: Engine) -> Call:
    _lose(engine, "a", is_started=True)
    return Call("job_cancel", {"id": "a"})


def retry_failed(engine: Engine) -> Call:
    claim = engine.active("a", keep_failed=":500000")
    _own_everything(engine, claim)
    engine.finish(claim, "failed", None, {"reason": "error", "error": error_text()})
    return Call("job_retry", {"id": "a", "nonce": "x"})


def retry_cancelled_fresh(engine: Engine) -> Call:
    claim = engine.active("a")
    _own_everything(engine, claim)
    engine.call("job_cancel", id="a")
    engine.finish(claim)
    return Call("job_retry", {"id": "a", "nonce": "x", "fresh": True})


def promote(engine: Engine) -> Call:
    engine.add("a", delay_ms=5000)
    return Call("job_promote", {"id": "a", "nonce": "x"})


def remove_ended(engine: Engine) -> Call:
    claim = engine.active("a", keep_completed=":500000")
    _own_everything(engine, claim)
    engine.finish(claim)
    return Call("job_remove", {"id": "a", "nonce": "x"})


def remove_waiting(engine: Engine) -> Call:
    engine.add("a", ttl_ms=5000)
    return Call("job_remove", {"id": "a", "nonce": "x"})


def book_usage(engine: Engine) -> Call:
    engine.active("a")
    return Call("job_usage", {"id": "a", **report()})


def update_everything(engine: Engine) -> Call:
    claim = engine.active("a")
    args = {
        "id": "a",
        "token": claim.token,
        "n": 1,
        "progress": "0.5",
        "log": ["one", "two"],
        "data": "{}",
    }
    return Call("job_update", args)


def beat(engine: Engine) -> Call:
    claim = engine.active("a")
    args = {"worker": "w1", "leases": [["a", claim.token]], "started": [["a", claim.token, 3]]}
    return Call("job_beat", args)


def pause(engine: Engine) -> Call:
    engine.add("a")
    return Call("queue_pause", {"paused": True})


def resume(engine: Engine) -> Call:
    engine.add("a")
    engine.call("queue_pause", paused=True)
    return Call("queue_pause", {"paused": False})


def step(engine: Engine) -> Call:
    claim = engine.active("a")
    _send(engine, _append(engine, (claim, 1, 2)))
    return Call("job_step", {"id": "a", "token": claim.token, "key": "step:x#1", "entry": "1"})


def wait_with_mail(engine: Engine) -> Call:
    claim = engine.active("a")
    for i in (1, 2):
        engine.call("job_signal", id="a", signal=f"s{i}", name="go", message=str(i))
    args = {"id": "a", "token": claim.token, "key": "signal:go#1", "name": "go", "timeout_ms": 500}
    return Call("job_wait", args)


def wait_without_mail(engine: Engine) -> Call:
    claim = engine.active("a")
    args = {"id": "a", "token": claim.token, "key": "signal:go#1", "name": "go", "timeout_ms": 500}
    return Call("job_wait", args)


def signal_suspended(engine: Engine) -> Call:
    _suspend(engine)
    return Call("job_signal", {"id": "a", "signal": "s1", "name": "go", "message": "1"})


def suspend_with_mail(engine: Engine) -> Call:
    call = wait_without_mail(engine)
    _send(engine, call)
    engine.call("job_signal", id="a", signal="s1", name="go", message="1")
    return _turn(done=[["a", call.args["token"], "suspended", 5, None, {}]])


def time_out_wait(engine: Engine) -> Call:
    _suspend(engine)
    _wait(engine, 600)
    return _turn()


def adopt_children(engine: Engine) -> Call:
    claim = engine.active("a")
    children = [[name, json.dumps({"queue": "q", "id": name})] for name in "xy"]
    add = [["q", json.dumps({"id": name, "name": "job"})] for name in "xy"]
    args = {"parent": "a", "token": claim.token, "children": children, "add": add}
    return Call("child_expect", args)


def expect_children(engine: Engine) -> Call:
    engine.add("a", pending=2)
    children = [[name, json.dumps({"queue": "q", "id": name})] for name in "xy"]
    return Call("child_expect", {"parent": "a", "children": children})


def last_child_ends(engine: Engine) -> Call:
    _send(engine, expect_children(engine))
    engine.call("child_ended", **_end_of("x"))
    return Call("child_ended", _end_of("y"))


def child_fails_parent(engine: Engine) -> Call:
    _send(engine, expect_children(engine))
    return Call("child_ended", {**_end_of("x"), "state": "failed", "policy": "fail"})


def park_for_children(engine: Engine) -> Call:
    call = adopt_children(engine)
    _send(engine, call)
    return _turn(done=[["a", call.args["token"], "waiting_children", 5, None, {}]])


def child_ends_with_parent_to_tell(engine: Engine) -> Call:
    claim = engine.active(
        "a", parent=json.dumps([{"queue": "p", "id": "p", "key": "a", "policy": "fail"}])
    )
    return _turn(done=[outcome(claim)])


SCENARIOS: list[Prepare] = [
    add_plain,
    add_with_options,
    add_over_tombstone,
    claim_plain,
    claim_suspect_and_expired,
    finish_each_kind,
    finish_and_remove_at_once,
    finish_with_tail,
    finish_with_first_chunks_as_tail,
    finish_over_the_kept_number,
    reclaim_lost,
    promote_and_expire,
    everything_in_one_turn,
    append_first,
    append_more,
    append_with_reset,
    cancel_waiting,
    cancel_delayed_and_remove,
    cancel_running,
    cancel_suspect,
    retry_failed,
    retry_cancelled_fresh,
    promote,
    remove_ended,
    remove_waiting,
    book_usage,
    update_everything,
    beat,
    pause,
    resume,
    step,
    wait_with_mail,
    wait_without_mail,
    signal_suspended,
    suspend_with_mail,
    time_out_wait,
    adopt_children,
    expect_children,
    last_child_ends,
    child_fails_parent,
    park_for_children,
    child_ends_with_parent_to_tell,
]


@pytest.mark.parametrize("prepare", SCENARIOS, ids=lambda prepare: prepare.__name__)
def test_broken_call_is_put_right_by_its_repeat(server: ValkeyServer, prepare: Prepare):
    whole = _queue(server, "whole")
    call = prepare(whole)
    expected = _answer(call, _send(whole, call))
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

        _wait(engine, LONG + 30_000)
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


# -- helpers ------------------------------------------------------------------------------------------------------

_LIVE = ("waiting", "suspects", "delayed", "active", "suspended", "waiting_children")


def _queue(server: ValkeyServer, name: str) -> Engine:
    engine = Engine(server, name)
    engine.load()
    return engine


def _claims(engine: Engine, count: int) -> dict[str, Claim]:
    reply = engine.turn("w1", want=count, lease_ms=LONG)
    assert len(reply.claims) == count
    return {claim.id: claim for claim in reply.claims}


def _own_everything(engine: Engine, claim: Claim) -> None:
    """Give a running job a stream, a log and usage."""
    _send(engine, _append(engine, (claim, 1, 2)))
    engine.call("job_update", id=claim.id, token=claim.token, n=1, log=["line"], progress="1")
    engine.call("job_usage", id=claim.id, **report(f"{claim.id}/1/1"))


def _wait(engine: Engine, ms: int) -> None:
    """Let time go by while some worker calls, as in a queue that is alive."""
    while ms > 0:
        step = min(ms, 2000)
        engine.advance(step)
        ms -= step
        engine.call("job_beat", worker="w9", leases=[])


def _lose(engine: Engine, id: str, *, is_started: bool, is_taken_back: bool = True) -> None:
    """Let a worker die with a job."""
    engine.add(id, priority=0)
    claim = engine.claim("w8")
    if is_started:
        engine.start(claim, "w8")
    _wait(engine, 3000)
    if is_taken_back:
        engine.turn("w9")
        assert engine.where(id) == ["suspects" if is_started else "waiting"]


def _suspend(engine: Engine) -> None:
    call = wait_without_mail(engine)
    _send(engine, call)
    engine.turn(done=[["a", call.args["token"], "suspended", 5, None, {}]])
    assert engine.where("a") == ["suspended"]


def _end_of(key: str) -> dict[str, object]:
    ending = json.dumps({"state": "completed", "result": 1})
    usage = {"tokens:input": 3}
    return {
        "parent": "a",
        "key": key,
        "policy": "fail",
        "state": "completed",
        "end": ending,
        "usage": usage,
    }


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
        _wait(engine, 1000)
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
