from __future__ import annotations

import json

import pytest

from tests.lua.engine import Engine, error_text, refused


def _cancel(engine: Engine, id: str = "a", **more: object) -> str:
    return engine.call("job_cancel", id=id, **more).decode()


@pytest.mark.parametrize(
    "options", [{}, {"delay_ms": 5000}, {"pending": 1}], ids=["waiting", "delayed", "parent"]
)
def test_job_that_does_not_run_ends_cancelled(engine: Engine, options: dict[str, object]):
    engine.add("a", **options)

    assert _cancel(engine) == "cancelled"

    job = engine.job("a")
    assert engine.where("a") == ["cancelled"]
    assert (job["state"], job["reason"]) == ("cancelled", "cancelled")
    assert engine.score("cancelled", "a") == int(job["finished_at"])
    assert engine.events()[-1] == ("cancelled", "a")


def test_suspect_and_suspended_jobs_can_be_cancelled(engine: Engine):
    engine.start(engine.active("a"))
    for _ in range(2):
        engine.advance(2000)
        engine.turn("w2")
    engine.add("b")
    claim = engine.claim(suspects=1)
    engine.call("job_wait", id="b", token=claim.token, key="signal:x#1", name="x")
    engine.finish(claim, "suspended", None, {})
    assert (engine.where("a"), engine.where("b")) == (["suspects"], ["suspended"])

    assert [_cancel(engine, "a"), _cancel(engine, "b")] == ["cancelled", "cancelled"]

    assert engine.index("cancelled") == ["a", "b"]


def test_running_job_goes_on_and_its_worker_is_told(engine: Engine):
    claim = engine.active()

    assert _cancel(engine) == "requested"

    assert engine.where("a") == ["active"]
    assert engine.job("a")["cancel_requested"] == "1"
    assert engine.server.cmd("LRANGE", f"{engine.root}:inbox:w1", 0, -1) == [
        f"cancel a {claim.token}".encode()
    ]
    assert 0 < engine.ttl("inbox:w1") <= 60_000


@pytest.mark.parametrize(
    "kind", ["completed", "failed", "retry", "delayed", "released", "cancelled"]
)
def test_whatever_the_run_hands_in_the_job_ends_cancelled(engine: Engine, kind: str):
    claim = engine.active()
    _cancel(engine)

    extra = {"reason": "error", "why": "x", "delay_ms": 0, "error": error_text()}
    assert engine.finish(claim, kind, '"result"', extra) == "o"

    assert engine.where("a") == ["cancelled"]
    assert "result" not in engine.job("a")


def test_cancelled_job_whose_worker_dies_is_not_run_again(engine: Engine):
    engine.start(engine.active())
    _cancel(engine)

    for _ in range(2):
        engine.advance(2000)
        engine.turn("w2", want=1)

    assert engine.where("a") == ["cancelled"]


def test_ended_job_stays_as_it_ended(engine: Engine):
    engine.ended("a", "completed")
    before = engine.job("a")

    assert _cancel(engine) == "ended"
    assert engine.job("a") == before


def test_cancelling_twice_is_cancelling_once(engine: Engine):
    engine.add("a")
    _cancel(engine)
    before = engine.dump()

    assert _cancel(engine) == "ended"
    assert _cancel(engine, repeat=True) == "cancelled"

    assert engine.dump() == before


def test_repeat_finds_the_tombstone_of_its_own_removal(engine: Engine):
    engine.add("a", keep_failed="0:")
    _cancel(engine)

    assert _cancel(engine, repeat=True) == "cancelled"
    with refused("GONE a"):
        _cancel(engine)


def test_cancelling_leaves_no_other_keys(engine: Engine):
    engine.add("a")
    before = engine.names()

    _cancel(engine)

    assert engine.names() - before == {"cancelled"}


def test_cancelling_a_parent_sends_word_to_its_unfinished_children(engine: Engine):
    engine.add("a", pending=2)
    children = [[name, json.dumps({"queue": "q", "id": name})] for name in "xy"]
    engine.call("child_expect", parent="a", children=children)
    engine.call("child_ended", parent="a", key="x", policy="fail", state="completed", end="{}")

    _cancel(engine)

    entries = engine.call("outbox_read", limit=10)
    assert [fields for _, fields, *_ in entries] == [
        [b"kind", b"cancel", b"child", children[1][1].encode()]
    ]


def test_unknown_job_is_gone(engine: Engine):
    with refused("GONE nobody"):
        _cancel(engine, "nobody")
    with refused("ARG id "):
        engine.call("job_cancel")
