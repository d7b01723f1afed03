from __future__ import annotations

import pytest

from tests.lua.engine import Engine, error_text, outcome, refused


def _parent(key: str) -> str:
    return f'[{{"queue":"p","id":"p","key":"{key}","policy":"fail"}}]'


def test_ending_of_a_child_waits_for_its_relay(engine: Engine):
    engine.add("a", "b", parent=_parent("a"))
    first, second = engine.turn(want=2).claims
    engine.finish(first, "completed", "7")
    engine.finish(second, "failed", None, {"reason": "error", "error": error_text()})
    before = engine.dump()

    entries = [
        dict(zip(fields[::2], fields[1::2], strict=True))
        for _, fields, *_ in engine.call("outbox_read", limit=10)
    ]

    assert [(entry[b"kind"], entry[b"id"], entry[b"state"]) for entry in entries] == [
        (b"child", b"a", b"completed"),
        (b"child", b"b", b"failed"),
    ]
    assert entries[0][b"result"] == b"7"
    assert entries[0][b"parents"] == _parent("a").encode()
    assert entries[1][b"error"] == error_text().encode()
    assert engine.dump() == before


def test_oldest_entries_come_first_and_no_more_than_asked(engine: Engine):
    for id in "abc":
        engine.finish(engine.active(id, parent=_parent(id)))

    (entry,) = engine.call("outbox_read", limit=1)

    assert b"a" in entry[1]


def test_job_that_failed_for_good_is_copied_to_the_dead_letters(engine: Engine):
    claim = engine.active(data='{"x":1}')
    done = [outcome(claim, "failed", None, {"reason": "error", "error": error_text()})]

    engine.turn(done=done, dead_letter="dead")

    ((_, fields, *_),) = engine.call("outbox_read", limit=10)
    entry = dict(zip(fields[::2], fields[1::2], strict=True))
    assert (entry[b"kind"], entry[b"queue"], entry[b"data"]) == (b"dead", b"dead", b'{"x":1}')


@pytest.mark.parametrize("limit", [0, 501, 1.5, "x"])
def test_bad_limit_is_refused(engine: Engine, limit: object):
    with refused("ARG limit "):
        engine.call("outbox_read", limit=limit)


@pytest.mark.parametrize("retries", [-1, 501, 1.5, "x"])
def test_bad_number_of_retries_is_refused(engine: Engine, retries: object):
    with refused("ARG retries "):
        engine.call("outbox_read", limit=1, retries=retries)
