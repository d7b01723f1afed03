from __future__ import annotations

import pytest

from tests.lua.engine import Engine, refused


def test_relayed_entries_are_forgotten_once(engine: Engine):
    for id in "ab":
        engine.finish(engine.active(id, parent=f'[{{"key":"{id}"}}]'))
    ids = [entry_id.decode() for entry_id, _ in engine.call("outbox_read", limit=10)]

    assert engine.call("outbox_ack", ids=ids[:1]) == 1
    assert engine.call("outbox_ack", ids=ids[:1]) == 0

    assert [entry_id.decode() for entry_id, _ in engine.call("outbox_read", limit=10)] == ids[1:]


def test_nothing_to_acknowledge_is_fine(engine: Engine):
    assert engine.call("outbox_ack", ids=[]) == 0
    assert engine.names() == set()


@pytest.mark.parametrize("ids", ["x", [1], ["1-1"] * 501])
def test_bad_ids_are_refused(engine: Engine, ids: object):
    with refused("ARG ids "):
        engine.call("outbox_ack", ids=ids)
