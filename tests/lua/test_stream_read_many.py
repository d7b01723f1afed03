from __future__ import annotations

from typing import Any

import pytest

from tests.lua.engine import Engine, refused


def _write(engine: Engine, id: str, *texts: str) -> list[str]:
    claim = engine.active(id)
    chunks = [["content", text] for text in texts]
    engine.call("stream_append", parts=[[id, claim.token, claim.run, 1, chunks]])
    entries = engine.server.cmd("XRANGE", f"{engine.root}:job:{id}:chunks", "-", "+")
    return [entry_id.decode() for entry_id, _ in entries]


def _read(engine: Engine, *jobs: list[Any], limit: int = 100, size: int = 1_000_000) -> list[Any]:
    return engine.call("stream_read_many", jobs=list(jobs), limit=limit, bytes=size)


def test_chunks_after_an_id_are_answered_per_job(engine: Engine):
    a, b = _write(engine, "a", "1", "2"), _write(engine, "b", "3")
    before = engine.dump()

    rows = _read(engine, ["a", a[0]], ["b", ""], ["b", b[0]])

    assert [[entry[0].decode() for entry in entries] for entries, *_ in rows] == [a[1:], b, []]
    assert [(gap, end) for _, gap, end, _ in rows] == [(b"", b"")] * 3
    assert engine.dump() == before


def test_end_is_told_when_nothing_is_left_to_read(engine: Engine):
    engine.ended("plain", "completed")
    engine.add("waits")

    rows = _read(engine, ["plain", ""], ["waits", ""], ["nobody", ""])

    assert [end for _, _, end, _ in rows] == [b"completed", b"", b"gone"]


def test_bytes_of_an_answer_are_bounded(engine: Engine):
    for id in "abc":
        _write(engine, id, "x" * 500)

    assert len(_read(engine, *([id, ""] for id in "abc"), size=600)) == 2
    assert len(_read(engine, *([id, ""] for id in "abc"), size=1)) == 1


def test_limit_is_per_job(engine: Engine):
    _write(engine, "a", "1", "2", "3")

    assert len(_read(engine, ["a", ""], limit=2)[0][0]) == 2


def test_trimmed_chunks_are_a_gap(engine: Engine):
    ids = _write(engine, "a", "1", "2", "3")
    engine.server.cmd("XTRIM", f"{engine.root}:job:a:chunks", "MAXLEN", 1)

    gaps = [gap.decode() for _, gap, *_ in _read(engine, ["a", ""], ["a", ids[0]], ["a", ids[2]])]

    assert gaps == [ids[2], ids[2], ""]


def _append(engine: Engine, claim: Any, first: int, *chunks: list[str]) -> list[str]:
    engine.call("stream_append", parts=[[claim.id, claim.token, claim.run, first, list(chunks)]])
    entries = engine.server.cmd("XRANGE", f"{engine.root}:job:{claim.id}:chunks", "-", "+")
    return [entry_id.decode() for entry_id, _ in entries]


def _call_at(engine: Engine, place: str) -> str:
    ((_, _, _, call),) = _read(engine, ["a", place, True])
    return call.decode()


def test_open_call_is_told_to_who_asks(engine: Engine):
    claim = engine.active("a")
    ids = _append(
        engine,
        claim,
        1,
        ["note", "x"],
        ["start", "", '{"call":"a/1/1"}'],
        ["content", "1", '{"index":"0"}'],
        ["done", "stop", '{"call":"a/1/1"}'],
        ["start", "x", '{"call":7}'],
        ["start", "", '{"call":"a/1/2"}'],
        ["done", "stop", '{"call":"a/1/1"}'],
        ["reset", "fallback", '{"call":"a/1/2"}'],
        ["content", "2", "no JSON"],
        ["content", "3", '{"_call":"a/1/3"}'],
        ["content", "3", '{"call":"a/1/4"}'],
        ["content", "3"],
    )

    one, two, three = "a/1/1", "a/1/2", "a/1/3"
    calls = ["", one, one, "", "", two, two, "", "", three, three, ""]
    assert [_call_at(engine, id) for id in ids] == calls
    assert _read(engine, ["a", ids[1]], ["a", "", True])[0][3] == b""
    assert _read(engine, ["a", "", True])[0][3] == b""


def test_call_of_another_run_is_not_open(engine: Engine):
    claim = engine.active("a")
    before = _append(engine, claim, 1, ["start", "", '{"call":"a/1/1"}'], ["content", "1"])
    key = f"{engine.root}:job:a:chunks"
    add = ["XADD", key, "*", "type", "content", "content", "2", "epoch", "2", "seq", "1"]
    engine.server.cmd(*add)

    assert _call_at(engine, before[1]) == ""


def test_look_for_the_open_call_is_bounded(engine: Engine):
    claim = engine.active("a")
    start = ["start", "", '{"call":"a/1/1"}']
    ids = _append(engine, claim, 1, start, *(["content", "x"] for _ in range(70)))

    assert _call_at(engine, ids[63]) == "a/1/1"
    assert _call_at(engine, ids[64]) == ""


@pytest.mark.parametrize(
    "args",
    [
        {"jobs": "x"},
        {"jobs": [["a", ""]] * 257},
        {"limit": 0},
        {"limit": 10_001},
        {"bytes": 0},
        {"bytes": 1.5},
    ],
)
def test_bad_arguments_are_named(engine: Engine, args: dict[str, object]):
    with refused(f"ARG {next(iter(args))} "):
        engine.call("stream_read_many", **{"jobs": [], "limit": 1, "bytes": 1, **args})


@pytest.mark.parametrize(
    "wanted", [["a", "yesterday"], ["a"], [1, ""], ["a", 1], "a", ["a", "1-x"]]
)
def test_bad_position_is_refused(engine: Engine, wanted: object):
    with refused("ARG "):
        engine.call("stream_read_many", jobs=[wanted], limit=1, bytes=1)
