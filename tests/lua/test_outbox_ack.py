from __future__ import annotations

from typing import Any

import pytest

from tests.lua.engine import Broken, Engine, error_text, refused

MAX_WRITES = 20


def read(engine: Engine, retries: int = 10) -> list[tuple[str, str, bool, int]]:
    """What there is to be relayed: (id, subject, has to wait, tries)."""
    rows = engine.call("outbox_read", limit=10, retries=retries)
    return [
        (id.decode(), about.decode(), behind == 1, tries) for id, _, about, behind, tries in rows
    ]


def is_empty(engine: Engine) -> bool:
    return not {"outbox_stuck", "outbox_due"} & engine.names() and read(engine) == []


def child_ends(engine: Engine, *ids: str) -> list[str]:
    """Children end: the ids of their entries."""
    before = {id for id, *_ in read(engine)}
    for id in ids:
        engine.finish(engine.active(id, parent=f'[{{"key":"{id}"}}]'))
    return [id for id, *_ in read(engine) if id not in before]


def has_work(engine: Engine) -> bool:
    """Does a turn tell its worker to relay?"""
    from tests.lua.engine import _unpack, turn_args

    engine.advance(1)
    number = engine.clock + 1000
    return _unpack(engine.call("turn", **turn_args("w9", number))[0])[6] == 1


def test_relayed_entries_are_forgotten_once(engine: Engine):
    first, second = child_ends(engine, "a", "b")

    assert engine.call("outbox_ack", ids=[first]) == 1
    assert engine.call("outbox_ack", ids=[first]) == 0

    assert [id for id, *_ in read(engine)] == [second]


def test_failed_entry_makes_room_and_comes_again(engine: Engine):
    first, second = child_ends(engine, "a", "b")
    fields = engine.call("outbox_read", limit=1)[0][1]

    engine.call("outbox_ack", ids=[], failed=[[first, "no"]])

    assert [id for id, *_ in read(engine)] == [second]
    engine.advance(1001)
    assert read(engine) == [(second, "b", False, 0), (first, "a", False, 1)]
    assert engine.call("outbox_read", limit=10, retries=10)[1][1] == fields, "it is whole"
    assert [id for id, *_ in read(engine, retries=0)] == [second], "only where they are asked for"
    assert engine.call("outbox_ack", ids=[first, second]) == 2
    assert not {"outbox_stuck", "outbox_due"} & engine.names()


def test_failed_entry_comes_at_growing_distances_up_to_a_minute(engine: Engine):
    (entry,) = child_ends(engine, "a")
    distances: list[int] = []
    for _ in range(80):  # 2 ** 80 would be no instant
        engine.call("outbox_ack", ids=[], failed=[[entry, "no"]])
        due = engine.score("outbox_due", entry)
        distances.append(round((due - engine.now()) / 1000))
        engine.advance(int(due - engine.now()) + 1)

    assert distances[:7] == [1, 2, 4, 8, 16, 32, 60]
    assert set(distances[7:]) == {60}
    assert read(engine) == [(entry, "a", False, 80)]


def test_turn_tells_of_entries_put_aside_when_their_time_has_come(engine: Engine):
    (entry,) = child_ends(engine, "a")
    assert has_work(engine)

    engine.call("outbox_ack", ids=[], failed=[[entry, "no"]])

    assert not has_work(engine)
    engine.advance(1001)
    assert has_work(engine)


def test_cancelling_of_a_child_waits_for_its_adding(engine: Engine):
    """Else it would be cancelled before it is there, and run in the end."""
    parent = engine.active("p")
    children = [[key, f'{{"queue":"q","id":"{key}"}}'] for key in ("k", "l")]
    adds = [["q", f'{{"id":"{key}"}}'] for key in ("k", "l")]
    engine.call("child_expect", parent="p", token=parent.token, children=children, add=adds)
    add, other_add = (id for id, *_ in read(engine))
    engine.call("outbox_ack", ids=[other_add], failed=[[add, "no"]])
    engine.call("job_cancel", id="p")
    engine.finish(parent, "cancelled")

    cancels = {about: (id, behind) for id, about, behind, _ in read(engine)}
    assert [behind for _, behind in cancels.values()] == [
        about == children[0][1] for about in cancels
    ]
    cancel = cancels[children[0][1]][0]
    engine.call("outbox_ack", ids=[], failed=[[cancel, ""]])
    engine.advance(1001)
    waits = {id: behind for id, _, behind, tries in read(engine) if tries}
    assert waits == {add: False, cancel: True}

    engine.call("outbox_ack", ids=[add])

    assert [behind for id, _, behind, _ in read(engine) if id == cancel] == [False]
    engine.call("outbox_ack", ids=[id for id, *_ in read(engine)])
    assert is_empty(engine)


def test_second_end_of_a_child_waits_for_its_first(engine: Engine):
    claim = engine.active("a", parent='[{"key":"a"}]')
    engine.finish(claim, "failed", None, {"reason": "error", "error": error_text()})
    ((first, *_),) = read(engine)
    engine.call("outbox_ack", ids=[], failed=[[first, "no"]])
    engine.call("job_retry", id="a")
    engine.finish(engine.claim())

    assert [(about, behind) for _, about, behind, _ in read(engine)] == [("a", True)]


def test_entry_that_others_have_relayed_is_not_put_aside(engine: Engine):
    (entry,) = child_ends(engine, "a")
    engine.call("outbox_ack", ids=[entry])

    engine.call("outbox_ack", ids=[], failed=[[entry, "no"]])

    assert is_empty(engine)


def test_entries_put_aside_count_where_the_outbox_is_full(engine: Engine):
    parent = engine.active("p")
    engine.server.cmd(
        "EVAL",
        "for i = 1, 100000 do redis.call('ZADD', KEYS[1], 9e15, i) end",
        1,
        f"{engine.root}:outbox_due",
    )

    with refused("BACKLOGGED"):
        engine.call("child_expect", parent="p", token=parent.token, children=[], add=[])


def test_nothing_to_acknowledge_is_fine(engine: Engine):
    assert engine.call("outbox_ack", ids=[]) == 0
    assert engine.names() == set()


@pytest.mark.parametrize("ids", ["x", [1], ["1-1"] * 501])
def test_bad_ids_are_refused(engine: Engine, ids: object):
    with refused("ARG ids "):
        engine.call("outbox_ack", ids=ids)


@pytest.mark.parametrize(
    "failed",
    ["x", [1], [["1-1"]], [["1", "no"]], [[1, "no"]], [["1-1", 7]], [["1-1", "x" * 1001]], [["1-1", ""]] * 501],
)  # fmt: skip
def test_bad_failures_are_refused_and_nothing_is_forgotten(engine: Engine, failed: object):
    (entry,) = child_ends(engine, "a")

    with refused("ARG failed "):
        engine.call("outbox_ack", ids=[entry], failed=failed)

    assert [id for id, *_ in read(engine)] == [entry]


@pytest.mark.parametrize("broken", ["failed", "ids"])
def test_acknowledgement_broken_off_loses_no_entry_and_leaves_nothing(engine: Engine, broken: str):
    for n in range(MAX_WRITES):
        (entry,) = child_ends(engine, f"job{n}")
        if broken == "ids":
            engine.call("outbox_ack", ids=[], failed=[[entry, "no"]])
        args: dict[str, Any] = {
            "ids": [],
            "failed": [],
            broken: [[entry, "no"]] if broken == "failed" else [entry],
        }
        try:
            engine.call("outbox_ack", **args, fail_after=n)
        except Broken:
            pass
        else:
            assert n > 2
            break
        engine.advance(60_000)
        found = {id for id, *_ in read(engine)}
        if broken == "failed":
            assert entry in found, f"after {n} writes"
        engine.call("outbox_ack", ids=[*found])
        assert is_empty(engine), f"after {n} writes"
