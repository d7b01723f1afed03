from __future__ import annotations

import pytest

from tests.lua.engine import Engine, refused


def test_paused_queue_gives_out_nothing_but_takes_outcomes(engine: Engine):
    claim = engine.active("a")
    engine.add("b")

    assert engine.call("queue_pause", paused=True) == 1

    reply = engine.turn(want=1, done=[["a", claim.token, "completed", 1]])
    assert (reply.codes, reply.claims, reply.more) == ("o", [], 0)
    engine.call("queue_pause", paused=False)
    assert engine.turn(want=1).ids == ["b"]


def test_resuming_wakes_an_idle_worker(engine: Engine):
    engine.call("queue_pause", paused=True)
    assert engine.names() == {"meta", "events"}

    engine.call("queue_pause", paused=False)

    assert engine.server.cmd("LLEN", f"{engine.root}:wake") == 1
    assert engine.events() == [("paused", ""), ("resumed", "")]


@pytest.mark.parametrize("paused", [True, False])
def test_pausing_twice_is_pausing_once(engine: Engine, paused: bool):
    engine.call("queue_pause", paused=paused)
    before = {**engine.dump(), "events": None}

    engine.call("queue_pause", paused=paused)

    assert {**engine.dump(), "events": None} == before


def test_paused_must_be_said(engine: Engine):
    with refused("ARG paused "):
        engine.call("queue_pause")
    assert engine.names() == set()
