from __future__ import annotations

from glidemq_core import _keys
from tests.lua.engine import Engine


def _counts(engine: Engine) -> dict[str, int]:
    flat = engine.call("queue_counts")
    return {flat[i].decode(): flat[i + 1] for i in range(0, len(flat), 2)}


def test_every_index_is_counted(engine: Engine):
    assert _counts(engine) == {**dict.fromkeys(_keys.INDEXES, 0), "paused": 0}
    engine.ended("a", "completed")
    engine.ended("b")
    engine.add("c", "d")
    engine.claim()
    engine.add("e", delay_ms=5000)
    engine.call("queue_pause", paused=True)
    before = engine.dump()

    found = {name: count for name, count in _counts(engine).items() if count}

    assert found == {
        "completed": 1,
        "failed": 1,
        "active": 1,
        "waiting": 1,
        "delayed": 1,
        "paused": 1,
    }
    assert engine.dump() == before
