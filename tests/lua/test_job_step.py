from __future__ import annotations

import pytest

from tests.lua.engine import Claim, Engine, refused


def _step(engine: Engine, claim: Claim, key: str = "step:x#1", **more: object) -> str:
    return engine.call("job_step", id=claim.id, token=claim.token, key=key, **more).decode()


def _journal(engine: Engine) -> dict[bytes, bytes]:
    flat = engine.call("job_journal", id="a")
    return dict(zip(flat[::2], flat[1::2], strict=True))


def test_first_entry_stands(engine: Engine):
    claim = engine.active()
    before = engine.names()

    assert _step(engine, claim, entry="1") == "1"
    assert _step(engine, claim, entry="2") == "1"

    assert _journal(engine) == {b"step:x#1": b"1"}
    assert engine.names() - before == {"job:a:steps"}
    assert engine.job("a")["satellites"] == "steps"


def test_begun_step_is_noted_until_it_is_done(engine: Engine):
    claim = engine.active()

    assert _step(engine, claim, started="call-1") == "call-1"
    assert _step(engine, claim, started="call-2") == "call-1"
    assert _journal(engine) == {b"?step:x#1": b"call-1"}

    _step(engine, claim, entry="1")
    assert _journal(engine) == {b"step:x#1": b"1"}


def test_finished_step_is_a_commit_point_of_the_stream(engine: Engine):
    claim = engine.active()
    reply = engine.packed("stream_append", parts=[["a", claim.token, 1, 1, [["content", "x"]]]])

    _step(engine, claim, entry="1")

    assert engine.job("a")["commit"] == reply[0][2]
    assert engine.job("a")["started_run"] == "1"


def test_steps_outlive_the_run(engine: Engine):
    claim = engine.active()
    _step(engine, claim, entry="1")
    engine.finish(claim, "retry", None, {"delay_ms": 0})

    assert _step(engine, engine.claim(), entry="2") == "1"


def test_stale_and_unknown_runs_are_refused_without_a_trace(engine: Engine):
    claim = engine.active()
    engine.finish(claim)
    before = engine.dump()

    with refused("STALE a"):
        _step(engine, claim, entry="1")
    with refused("GONE b"):
        engine.call("job_step", id="b", token="x", key="k", entry="1")
    assert engine.dump() == before


def test_thousand_steps_are_the_most(engine: Engine):
    claim = engine.active()
    for i in range(1000):
        _step(engine, claim, f"step:{i}#1", entry="1")

    with refused("STATE a active of fewer than 1000 steps"):
        _step(engine, claim, "step:more#1", entry="1")
    assert _step(engine, claim, "step:7#1", entry="2") == "1"


@pytest.mark.parametrize(
    "args", [{"entry": 1}, {"entry": "x" * 262_145}, {"started": {}}, {}, {"key": 1, "entry": "1"}]
)
def test_bad_arguments_are_refused_before_anything_is_written(
    engine: Engine, args: dict[str, object]
):
    claim = engine.active()
    before = engine.dump()

    with refused("ARG "):
        engine.call("job_step", **{"id": "a", "token": claim.token, "key": "k", **args})
    assert engine.dump() == before
