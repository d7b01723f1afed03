from __future__ import annotations

from tests.lua.engine import Engine, refused


def test_children_are_answered_with_their_endings(engine: Engine):
    engine.add("a", pending=2)
    engine.call("child_expect", parent="a", children=[["x", '{"id":"1"}'], ["y", '{"id":"2"}']])
    engine.call("child_ended", parent="a", key="x", state="completed", end='{"result":1}')
    before = engine.dump()

    pending, flat = engine.call("job_children", id="a")

    assert pending == 1
    assert dict(zip(flat[::2], flat[1::2], strict=True)) == {
        b"x": b'{"id":"1"}',
        b"y": b'{"id":"2"}',
        b"x:end": b'{"result":1}',
    }
    assert engine.call("job_children", id="nobody") == [0, []]
    assert engine.dump() == before
    with refused("ARG id "):
        engine.call("job_children")
