from __future__ import annotations

import pytest

from tests.lua.engine import Engine, refused, report


def _remove(engine: Engine, **more: object) -> int:
    return engine.call("job_remove", id="a", **more)


def test_removed_job_leaves_nothing_but_its_stream_for_a_while(engine: Engine):
    engine.add("other")
    before = engine.names()
    engine.add("a", priority=0, ttl_ms=90_000, keep_failed=":90000")
    claim = engine.claim()
    engine.call("stream_append", parts=[["a", claim.token, 1, 1, [["content", "x"]]]])
    engine.call("job_update", id="a", token=claim.token, n=1, log=["x"])
    engine.call("job_usage", id="a", **report())
    engine.call("job_step", id="a", token=claim.token, key="step:x#1", entry="1")
    engine.call("job_signal", id="a", signal="s", name="x", message="1")
    engine.finish(claim, "failed", None, {"reason": "error", "error": '{"message":"no"}'})

    assert _remove(engine) == 1

    left = {
        name
        for name in engine.names()
        if not name.startswith(("minute:", "hour:", "removed:", "turn:"))
    }
    assert left - before == {"job:a:chunks", "workers", "models"}
    assert 0 < engine.ttl("job:a:chunks") <= 60_000
    assert all(engine.ttl(name) > 0 for name in engine.names() - left)
    assert engine.events()[-1] == ("removed", "a")


@pytest.mark.parametrize("options", [{}, {"delay_ms": 500}, {"pending": 1}])
def test_job_that_has_not_started_can_be_removed(engine: Engine, options: dict[str, int]):
    engine.add("a", **options)

    _remove(engine)

    assert engine.where("a") == []
    assert engine.turn(want=1).claims == []


def test_running_job_is_not_removed(engine: Engine):
    engine.active()
    before = engine.dump()

    with refused("STATE a active not running: cancel it first"):
        _remove(engine)
    assert engine.dump() == before


def test_second_removal_finds_nothing_but_a_repeat_of_the_first_is_answered(engine: Engine):
    engine.add("a")
    _remove(engine, nonce="x")
    before = engine.dump()

    assert _remove(engine, nonce="x", repeat=True) == 1
    with refused("GONE a"):
        _remove(engine, nonce="y", repeat=True)
    with refused("GONE a"):
        _remove(engine, nonce="x")

    assert engine.dump() == before


def test_repeat_leaves_a_job_alone_that_was_added_since(engine: Engine):
    engine.add("a", custom=True)
    _remove(engine, nonce="x")
    engine.add("a", custom=True, nonce="later")

    assert _remove(engine, nonce="x", repeat=True) == 1

    assert engine.where("a") == ["waiting"]


def test_unknown_job_is_gone(engine: Engine):
    with refused("GONE a"):
        _remove(engine)
    with refused("ARG id "):
        engine.call("job_remove")
