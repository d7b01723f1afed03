"""Situations in which a call is broken off: each prepares a queue and answers the call."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.lua.engine import Claim, Engine, error_text, outcome, report, turn_args

# What is to lie ahead of a call is LATER.
LATER = 20_000
LONG = 60_000
_SOON = 1000
_STEP = 1000  # less than the pause after which leases get time to be renewed


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


def send(engine: Engine, call: Call) -> Any:
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
        {"id": "a", "delay_ms": LATER, "ttl_ms": 2 * LATER, **options},
        {"id": "b", "ttl_ms": LATER, "custom": True, **options},
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
    engine.add("b", ttl_ms=_SOON)
    engine.add("c")
    wait(engine, 2 * _SOON)
    return _turn(want=5)


def finish_each_kind(engine: Engine) -> Call:
    kinds = ["completed", "failed", "cancelled", "retry", "delayed", "suspended", "released"]
    engine.add(*kinds)
    claims = _claims(engine, len(kinds))
    extras: dict[str, tuple[str | None, object]] = {
        "completed": ('{"x":1}', None),
        "failed": (None, {"reason": "error", "error": error_text()}),
        "retry": (None, {"delay_ms": LATER, "error": error_text()}),
        "delayed": (None, {"delay_ms": LATER, "why": "throttled"}),
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
    send(engine, _append(engine, (claim, 1, 2)))
    return _turn(done=[outcome(claim, "completed", "1", {"tail": [3, _chunks(3, 3)]})])


def finish_with_first_chunks_as_tail(engine: Engine) -> Call:
    claim = engine.active("a")
    return _turn(done=[outcome(claim, "retry", None, {"delay_ms": LATER, "tail": [1, _chunks(2)]})])


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
        claim = engine.claim("w2", max_stalled=9, lease_ms=LATER)
        if stalls:
            engine.start(claim, "w2")
    engine.server.cmd("HSET", f"{engine.root}:job:c", "stalled", "3")
    engine.add("d")
    engine.claim("w2", max_stalled=9, lease_ms=LATER)
    engine.call("job_cancel", id="d")
    wait(engine, LATER + _SOON)
    return _turn()


def promote_and_expire(engine: Engine) -> Call:
    engine.ended("e", "completed", keep_completed=f":{_SOON}")
    engine.ended("f", "failed", keep_failed=f":{_SOON}")
    engine.add("a", "b", delay_ms=_SOON)
    engine.add("c", ttl_ms=_SOON)
    engine.add("d", ttl_ms=_SOON, delay_ms=_SOON // 2, keep_failed="0:")
    wait(engine, 2 * _SOON)
    return _turn()


def everything_in_one_turn(engine: Engine) -> Call:
    """Outcomes, reclaim, promotion, expiry, retention and claims."""
    for id in ("old1", "old2"):
        engine.ended(id, "completed", priority=0)
    engine.ended("aged", "completed", keep_completed=f":{_SOON}", priority=0)
    engine.add("done", "again", priority=1)
    claims = _claims(engine, 2)
    _own_everything(engine, claims["done"])
    engine.add("due", delay_ms=10, priority=2)
    engine.add("next1", "next2", "next3", priority=3)
    _lose(engine, "lost", is_started=True, is_taken_back=False)
    done = [
        outcome(claims["done"], "completed", "1", {"tail": [3, _chunks(1, 3)]}),
        outcome(claims["again"], "retry", None, {"delay_ms": LATER, "error": error_text()}),
    ]
    return _turn(want=3, done=done, keep_completed="1:", trims=True)


def append_first(engine: Engine) -> Call:
    engine.add("a", "b")
    claims = _claims(engine, 2)
    return _append(engine, (claims["a"], 1, 3), (claims["b"], 1, 2))


def append_more(engine: Engine) -> Call:
    claim = engine.active("a")
    send(engine, _append(engine, (claim, 1, 2)))
    return _append(engine, (claim, 2, 3))


def append_with_reset(engine: Engine) -> Call:
    claim = engine.active("a")
    send(engine, _append(engine, (claim, 1, 2)))
    engine.finish(claim, "retry", None, {"delay_ms": 0})
    return _append(engine, (engine.claim(), 1, 2))


def cancel_waiting(engine: Engine) -> Call:
    engine.add("a")
    return Call("job_cancel", {"id": "a"})


def cancel_delayed_and_remove(engine: Engine) -> Call:
    claim = engine.active("a", keep_failed="0:")
    _own_everything(engine, claim)
    engine.finish(claim, "retry", None, {"delay_ms": LATER, "error": error_text()})
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
    engine.add("a", delay_ms=LATER)
    return Call("job_promote", {"id": "a", "nonce": "x"})


def remove_ended(engine: Engine) -> Call:
    claim = engine.active("a", keep_completed=":500000")
    _own_everything(engine, claim)
    engine.finish(claim)
    return Call("job_remove", {"id": "a", "nonce": "x"})


def remove_waiting(engine: Engine) -> Call:
    engine.add("a", ttl_ms=LATER)
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
    send(engine, _append(engine, (claim, 1, 2)))
    return Call("job_step", {"id": "a", "token": claim.token, "key": "step:x#1", "entry": "1"})


def wait_with_mail(engine: Engine) -> Call:
    claim = engine.active("a")
    for i in (1, 2):
        engine.call("job_signal", id="a", signal=f"s{i}", name="go", message=str(i))
    return _wait(claim)


def wait_without_mail(engine: Engine) -> Call:
    return _wait(engine.active("a"))


def signal_suspended(engine: Engine) -> Call:
    _suspend(engine)
    return Call("job_signal", {"id": "a", "signal": "s1", "name": "go", "message": "1"})


def suspend_with_mail(engine: Engine) -> Call:
    call = wait_without_mail(engine)
    send(engine, call)
    engine.call("job_signal", id="a", signal="s1", name="go", message="1")
    return _turn(done=[["a", call.args["token"], "suspended", 5, None, {}]])


def time_out_wait(engine: Engine) -> Call:
    _suspend(engine)
    wait(engine, LATER + _SOON)
    return _turn()


def adopt_children(engine: Engine) -> Call:
    claim = engine.active("a")
    children = [[name, json.dumps({"queue": "q", "id": name})] for name in "xy"]
    add = [["q", json.dumps({"id": name, "name": "job"})] for name in "xy"]
    args = {"parent": "a", "token": claim.token, "children": children, "add": add}
    return Call("child_expect", args)


def adopt_from_outside(engine: Engine) -> Call:
    engine.add("a", pending=1)
    engine.call("child_expect", parent="a", children=[["x", '{"queue":"q","id":"x"}']])
    add = [["q", json.dumps({"id": "y", "name": "job"})]]
    children = [["y", json.dumps({"queue": "q", "id": "y"})]]
    return Call("child_expect", {"parent": "a", "children": children, "add": add})


def signal_after_the_deadline(engine: Engine) -> Call:
    _suspend(engine)
    wait(engine, LATER + _SOON)
    return Call("job_signal", {"id": "a", "signal": "s1", "name": "go", "message": "1"})


def expect_children(engine: Engine) -> Call:
    engine.add("a", pending=2)
    children = [[name, json.dumps({"queue": "q", "id": name})] for name in "xy"]
    return Call("child_expect", {"parent": "a", "children": children})


def last_child_ends(engine: Engine) -> Call:
    send(engine, expect_children(engine))
    engine.call("child_ended", **_end_of("x"))
    return Call("child_ended", _end_of("y"))


def child_fails_parent(engine: Engine) -> Call:
    send(engine, expect_children(engine))
    return Call("child_ended", {**_end_of("x"), "state": "failed", "policy": "fail"})


def child_ends_after_its_parent(engine: Engine) -> Call:
    send(engine, child_fails_parent(engine))
    return Call("child_ended", _end_of("y"))


def late_use(engine: Engine) -> Call:
    send(engine, child_fails_parent(engine))
    return Call("child_ended", {"parent": "a", "late": "n", "usage": {"tokens:input": 3}})


def park_for_children(engine: Engine) -> Call:
    call = adopt_children(engine)
    send(engine, call)
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
    adopt_from_outside,
    signal_after_the_deadline,
    expect_children,
    last_child_ends,
    child_fails_parent,
    child_ends_after_its_parent,
    late_use,
    park_for_children,
    child_ends_with_parent_to_tell,
]


# -- helpers ---------------------------------------------------------------------------------------------------------


def _claims(engine: Engine, count: int) -> dict[str, Claim]:
    reply = engine.turn("w1", want=count, lease_ms=LONG)
    assert len(reply.claims) == count
    return {claim.id: claim for claim in reply.claims}


def _own_everything(engine: Engine, claim: Claim) -> None:
    """Give a running job a stream, a log and usage."""
    send(engine, _append(engine, (claim, 1, 2)))
    engine.call("job_update", id=claim.id, token=claim.token, n=1, log=["line"], progress="1")
    engine.call("job_usage", id=claim.id, **report(f"{claim.id}/1/1"))


def wait(engine: Engine, ms: int) -> None:
    """Let time go by while some worker calls, as in a queue that is alive."""
    while ms > 0:
        step = min(ms, _STEP)
        engine.advance(step)
        ms -= step
        engine.call("job_beat", worker="w9", leases=[])


def _wait(claim: Claim) -> Call:
    args = {"token": claim.token, "key": "signal:go#1", "name": "go", "timeout_ms": LATER}
    return Call("job_wait", {"id": claim.id, **args})


def _lose(engine: Engine, id: str, *, is_started: bool, is_taken_back: bool = True) -> None:
    """Let a worker die with a job."""
    engine.add(id, priority=0)
    claim = engine.claim("w8")
    if is_started:
        engine.start(claim, "w8")
    wait(engine, 3000)
    if is_taken_back:
        engine.turn("w9")
        assert engine.where(id) == ["suspects" if is_started else "waiting"]


def _suspend(engine: Engine) -> None:
    call = wait_without_mail(engine)
    send(engine, call)
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
