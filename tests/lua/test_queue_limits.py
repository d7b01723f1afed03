from __future__ import annotations

import msgspec

from tests.lua.engine import Engine, turn_args


def test_limits_are_kept_and_each_turn_tells_their_version(engine: Engine):
    assert engine.call("queue_limits") == [0, b""]

    for version in (1, 2):
        engine.call("queue_limit", limits="[]")

        assert engine.call("queue_limits") == [version, b"[]"]
        reply = engine.call("turn", **turn_args("w1", version, want=0, done=()))
        assert msgspec.msgpack.decode(reply[0])[7] == version
