from __future__ import annotations

from tests.lua.engine import Engine


def test_ledgers_that_jobs_use_are_named(engine: Engine):
    assert engine.call("queue_ledgers") == []
    engine.server.cmd(
        "HSET", f"{engine.root}:meta", "ledger:main", "1", "ledger:tenant-7", "1", "paused", "1"
    )
    before = engine.dump()

    assert sorted(engine.call("queue_ledgers")) == [b"main", b"tenant-7"]
    assert engine.dump() == before
