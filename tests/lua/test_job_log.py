from __future__ import annotations

import pytest

from tests.lua.engine import Engine, refused


def test_lines_are_read_in_order_and_by_page(engine: Engine):
    claim = engine.active()
    engine.call("job_update", id="a", token=claim.token, n=1, log=["0", "1", "2", "3"])
    before = engine.dump()

    assert engine.call("job_log", id="a", start=1, limit=2) == [b"1", b"2"]
    assert engine.call("job_log", id="a", start=4, limit=2) == []
    assert engine.call("job_log", id="nobody", start=0, limit=2) == []
    assert engine.dump() == before


@pytest.mark.parametrize("args", [{"id": 1}, {"start": -1}, {"limit": 0}, {"limit": 1001}])
def test_bad_arguments_are_refused(engine: Engine, args: dict[str, object]):
    with refused(f"ARG {next(iter(args))} "):
        engine.call("job_log", **{"id": "a", "start": 0, "limit": 1, **args})
