from __future__ import annotations

import pytest

from tests.lua.engine import Engine, refused


def test_entries_that_could_not_be_relayed_are_listed_with_why_and_when(engine: Engine):
    engine.finish(engine.active("a", parent='[{"key":"a"}]'), "completed", f'"{"x" * 5000}"')
    ((entry, *_),) = engine.call("outbox_read", limit=10)
    failed_at = engine.now()
    engine.call("outbox_ack", ids=[], failed=[[entry.decode(), "ServerError: no"]])

    ((id, tries, since, why, due, flat),) = engine.call("outbox_stuck", limit=10)

    fields = dict(zip(flat[::2], flat[1::2], strict=True))
    assert (id, tries, why) == (entry, 1, b"ServerError: no")
    assert failed_at <= since <= engine.now()
    assert float(due) == since + 1000
    assert (fields[b"kind"], fields[b"id"]) == (b"child", b"a")
    assert b"result" not in fields, "what is long is left out"


def test_next_ones_come_first_and_no_more_than_asked(engine: Engine):
    for id in "ab":
        engine.finish(engine.active(id, parent=f'[{{"key":"{id}"}}]'))
    first, second = (row[0].decode() for row in engine.call("outbox_read", limit=10))
    for entry in (first, first, second):
        engine.call("outbox_ack", ids=[], failed=[[entry, "no"]])

    assert [row[0].decode() for row in engine.call("outbox_stuck", limit=1)] == [second]


def test_nothing_is_stuck_in_an_empty_queue(engine: Engine):
    assert engine.call("outbox_stuck", limit=10) == []
    assert engine.names() == set()


@pytest.mark.parametrize("limit", [0, 101, 1.5, "x"])
def test_bad_limit_is_refused(engine: Engine, limit: object):
    with refused("ARG limit "):
        engine.call("outbox_stuck", limit=limit)
