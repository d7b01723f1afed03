from __future__ import annotations

from glidemq_core import _keys
from tests.lua.engine import Engine


def test_both_sides_name_the_keys_alike(engine: Engine):
    flat = [part.decode() for part in engine.call("key_names")]

    assert dict(zip(flat[::2], flat[1::2], strict=True)) == _keys.all_names(engine.root)


def test_every_key_lies_in_the_slot_of_the_queue(engine: Engine):
    slot = engine.server.cmd("CLUSTER", "KEYSLOT", engine.root) if engine.is_cluster else None

    for name in _keys.all_names(engine.root).values():
        assert name.startswith(f"{engine.root}:")
        if slot is not None:
            assert engine.server.cmd("CLUSTER", "KEYSLOT", name) == slot
