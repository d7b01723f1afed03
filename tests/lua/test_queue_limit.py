from __future__ import annotations

from tests.lua.engine import Engine, refused


def test_limits_are_replaced_and_idle_workers_woken(engine: Engine):
    for limits in (b"[1]", b"[]"):
        engine.call("queue_limit", limits=limits.decode())

        assert engine.call("queue_limits")[1] == limits
    assert "wake" in engine.names()


def test_limits_that_are_no_text_are_refused(engine: Engine):
    with refused("ARG limits "):
        engine.call("queue_limit", limits=7)
    assert engine.names() == set()
