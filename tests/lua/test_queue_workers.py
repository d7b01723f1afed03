from __future__ import annotations

import msgspec

from tests.lua.engine import Engine


def test_workers_are_listed_with_their_jobs_latest_caller_first(engine: Engine):
    for id in ("a", "b", "c"):
        engine.add(id)
    engine.turn(worker="w1", want=2)
    engine.advance(5000)
    engine.turn(worker="w2", want=1)
    engine.advance(100)
    before = engine.dump()

    found = msgspec.msgpack.decode(engine.call("queue_workers"))

    assert [(name, jobs) for name, _, jobs in found] == [("w2", 1), ("w1", 2)]
    assert 100 <= found[0][1] < 5000 < found[1][1] < 60_000
    assert engine.dump() == before


def test_queue_without_workers_has_none(engine: Engine):
    assert msgspec.msgpack.decode(engine.call("queue_workers")) == []
