from __future__ import annotations

import pytest

from tests.lua.engine import Engine, refused


def _list(engine: Engine, state: str, start: int = 0, limit: int = 100) -> list[str]:
    return [id.decode() for id in engine.call("queue_list", state=state, start=start, limit=limit)]


def test_jobs_are_listed_in_the_order_of_their_index(engine: Engine):
    engine.add("b", "c")
    engine.add("a", priority=0)
    engine.add("e", delay_ms=9000)
    engine.add("d", delay_ms=5000)
    before = engine.dump()

    assert _list(engine, "waiting") == ["a", "b", "c"]
    assert _list(engine, "waiting", 1, 1) == ["b"]
    assert _list(engine, "delayed") == ["d", "e"]
    assert _list(engine, "completed") == []
    assert engine.dump() == before


def test_suspects_are_the_first_of_the_waiting(engine: Engine):
    engine.start(engine.active("a"))
    for _ in range(2):
        engine.advance(2000)
        engine.turn("w2")
    engine.add("b", "c")

    pages = [_list(engine, "waiting", start, 1) for start in range(4)]

    assert pages == [["a"], ["b"], ["c"], []]
    assert _list(engine, "waiting") == ["a", "b", "c"]


@pytest.mark.parametrize(
    "args",
    [{"state": "open"}, {"state": 1}, {"start": -1}, {"limit": 0}, {"limit": 1001}, {"start": 0.5}],
)
def test_bad_arguments_are_refused(engine: Engine, args: dict[str, object]):
    with refused(f"ARG {next(iter(args))} "):
        engine.call("queue_list", **{"state": "waiting", "start": 0, "limit": 1, **args})
