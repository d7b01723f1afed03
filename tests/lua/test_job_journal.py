from __future__ import annotations

from tests.lua.engine import Engine, refused


def test_everything_remembered_is_answered(engine: Engine):
    claim = engine.active()
    engine.call("job_step", id="a", token=claim.token, key="step:x#1", entry="1")
    engine.call("job_step", id="a", token=claim.token, key="step:y#1", started="2")
    before = engine.dump()

    flat = engine.call("job_journal", id="a")

    assert dict(zip(flat[::2], flat[1::2], strict=True)) == {b"step:x#1": b"1", b"?step:y#1": b"2"}
    assert engine.call("job_journal", id="nobody") == []
    assert engine.dump() == before
    with refused("ARG id "):
        engine.call("job_journal")
