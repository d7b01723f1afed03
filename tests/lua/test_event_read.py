from __future__ import annotations

import pytest

from tests.lua.engine import Engine, refused


def _ids(entries: list[list[bytes]]) -> list[str]:
    return [entry_id.decode() for entry_id, _ in entries]


def test_events_are_read_after_an_id(engine: Engine):
    for id in "abc":
        engine.add(id)
    before = engine.dump()

    first, last, entries = engine.call("event_read", after="", limit=10)
    later = engine.call("event_read", after=_ids(entries)[0], limit=1)

    assert [fields for _, fields in entries] == [[b"added", id.encode()] for id in "abc"]
    assert (first.decode(), last.decode()) == (_ids(entries)[0], _ids(entries)[-1])
    assert _ids(later[2]) == _ids(entries)[1:2]
    assert engine.call("event_read", after="$", limit=1) == [first, last, []]
    assert engine.dump() == before


def test_queue_without_events_has_no_ids(engine: Engine):
    assert engine.call("event_read", after="", limit=10) == [b"", b"", []]


@pytest.mark.parametrize(
    "args", [{"after": 1}, {"limit": 0}, {"limit": 1001}, {"after": "yesterday"}, {"after": "1"}]
)
def test_bad_arguments_are_refused(engine: Engine, args: dict[str, object]):
    with refused(f"ARG {next(iter(args))} "):
        engine.call("event_read", **{"after": "", "limit": 1, **args})
