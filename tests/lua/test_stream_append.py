from __future__ import annotations

import pytest

from tests.lua.engine import Claim, Engine, refused


def _part(claim: Claim, first: int, *texts: str) -> list[object]:
    return [claim.id, claim.token, claim.run, first, [["content", text] for text in texts]]


def _append(engine: Engine, *parts: list[object], **more: object) -> list[list[str]]:
    return engine.packed("stream_append", parts=list(parts), **more)


def _texts(engine: Engine, id: str = "a") -> list[tuple[str, str, str, str]]:
    return [
        (chunk["type"], chunk["content"], chunk["epoch"], chunk["seq"])
        for chunk in engine.chunks(id)
    ]


def test_chunks_of_several_jobs_are_appended_in_order(engine: Engine):
    engine.add("a", "b")
    first, second = engine.turn(want=2).claims
    before = engine.names()

    replies = _append(engine, _part(first, 1, "x", "y"), _part(second, 1, "z"))

    assert [(id, code) for id, code, _ in replies] == [("a", "o"), ("b", "o")]
    assert _texts(engine) == [("content", "x", "1", "1"), ("content", "y", "1", "2")]
    assert _texts(engine, "b") == [("content", "z", "1", "1")]
    assert engine.names() - before == {"job:a:chunks", "job:b:chunks"}
    assert engine.job("a")["satellites"] == "chunks"
    assert engine.job("a")["last_chunk"] == replies[0][2]


def test_fields_travel_as_json(engine: Engine):
    claim = engine.active()

    _append(engine, ["a", claim.token, 1, 1, [["tool_call", "", '{"name":"x"}']]])

    assert engine.chunks("a")[0]["fields"] == '{"name":"x"}'


@pytest.mark.parametrize("is_repeat", [False, True])
def test_what_is_there_is_not_appended_again(engine: Engine, is_repeat: bool):
    claim = engine.active()
    _append(engine, _part(claim, 1, "1", "2"))

    assert _append(engine, _part(claim, 1, "1", "2"), repeat=is_repeat)[0][1] == "o"
    assert _append(engine, _part(claim, 2, "2", "3"), repeat=is_repeat)[0][1] == "o"

    assert [text for _, text, _, _ in _texts(engine)] == ["1", "2", "3"]


def test_gap_is_refused(engine: Engine):
    claim = engine.active()
    _append(engine, _part(claim, 1, "1"))
    before = engine.dump()

    assert _append(engine, _part(claim, 3, "3"))[0][1] == "x"
    assert engine.dump() == before


def test_stale_and_unknown_jobs_are_named_and_leave_no_trace(engine: Engine):
    claim = engine.active()
    engine.finish(claim, "retry", None, {"delay_ms": 0})
    before = engine.dump()

    codes = [
        code for _, code, _ in _append(engine, _part(claim, 1, "1"), ["nobody", "x", 1, 1, []])
    ]

    assert codes == ["s", "g"]
    assert engine.dump() == before


def test_next_run_tells_readers_to_drop_what_the_last_one_wrote(engine: Engine):
    claim = engine.active()
    _append(engine, _part(claim, 1, "1"))
    engine.finish(claim, "retry", None, {"delay_ms": 0})

    _append(engine, _part(engine.claim(), 1, "one"))

    assert _texts(engine)[1:] == [("reset", "retry", "2", "0"), ("content", "one", "2", "1")]
    assert engine.chunks("a")[1]["fields"] == '{"keep_upto":"0"}'


def test_next_run_keeps_what_was_written_before_a_finished_step(engine: Engine):
    claim = engine.active()
    kept = _append(engine, _part(claim, 1, "1"))[0][2]
    engine.call("job_step", id="a", token=claim.token, key="step:x#1", entry="1")
    _append(engine, _part(claim, 2, "2"))
    engine.finish(claim, "retry", None, {"delay_ms": 0})

    _append(engine, _part(engine.claim(), 1, "two"))

    assert engine.chunks("a")[2]["fields"] == f'{{"keep_upto":"{kept}"}}'


def test_no_reset_where_nothing_lies_after_the_commit_point(engine: Engine):
    claim = engine.active()
    _append(engine, _part(claim, 1, "1"))
    engine.call("job_step", id="a", token=claim.token, key="step:x#1", entry="1")
    engine.finish(claim, "retry", None, {"delay_ms": 0})

    _append(engine, _part(engine.claim(), 1, "2"))

    assert [type_ for type_, *_ in _texts(engine)] == ["content", "content"]


def test_first_chunk_makes_the_run_a_started_one(engine: Engine):
    claim = engine.active()

    _append(engine, _part(claim, 1, "1"))

    assert engine.job("a")["started_run"] == "1"


def test_stream_over_four_mebibytes_loses_its_oldest_chunks(engine: Engine):
    claim = engine.active()
    for first in range(1, 61, 10):
        _append(engine, _part(claim, first, *["x" * 100_000] * 10))

    kept = _texts(engine)

    assert len(kept) < 60
    assert kept[-1][3] == "60"
    assert int(engine.job("a")["stream_bytes"]) <= 4 * 2**20


@pytest.mark.parametrize(
    "bad",
    [
        7,
        ["b"],
        [1, "t", 1, 1, []],
        ["b", "t", 0, 1, []],
        ["b", "t", 1, 0, []],
        ["b", "t", 1, 1.5, []],
        ["b", "t", 1, 1, "x"],
        ["b", "t", 1, 1, [["content"]]],
        ["b", "t", 1, 1, [["content", 1]]],
        ["b", "t", 1, 1, [["content", "x", {}]]],
        ["b", "t", 1, 1, [["content", "x"]] * 1025],
    ],
)
def test_bad_part_is_refused_before_the_good_one_is_written(engine: Engine, bad: object):
    claim = engine.active()
    before = engine.dump()

    with refused("ARG "):
        engine.call("stream_append", parts=[_part(claim, 1, "x"), bad])
    assert engine.dump() == before
