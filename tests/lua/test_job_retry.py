from __future__ import annotations

import pytest

from tests.lua.engine import Engine, error_text, refused


def _retry(engine: Engine, **more: object) -> int:
    return engine.call("job_retry", id="a", **more)


def test_failed_job_starts_anew_at_its_old_place(engine: Engine):
    engine.add("a", keep_failed=":5000", data="1")
    place = engine.score("waiting", "a")
    claim = engine.claim()
    engine.finish(claim, "retry", None, {"delay_ms": 0, "error": error_text()})
    engine.finish(engine.claim(), "failed", None, {"reason": "error", "error": error_text(2)})
    engine.add("b")

    assert _retry(engine) == 1

    job = engine.job("a")
    assert engine.index("waiting") == ["a", "b"]
    assert engine.score("waiting", "a") == place
    gone = {
        "attempt",
        "reason",
        "error",
        "finished_at",
        "started_at",
        "result",
        "cancel_requested",
        "stalled",
    }
    assert not gone & job.keys()
    assert (job["state"], job["data"]) == ("waiting", "1")
    assert engine.index("expiring") == []
    assert engine.claim().attempt == 1


def test_runs_are_numbered_on(engine: Engine):
    engine.ended("a")

    _retry(engine)

    assert engine.claim().run == 2


def test_cancelled_job_can_be_retried_and_completes(engine: Engine):
    engine.add("a")
    engine.call("job_cancel", id="a")

    _retry(engine)
    engine.finish(engine.claim())

    assert engine.where("a") == ["completed"]


def test_stream_starts_anew_and_the_journal_stays_unless_fresh(engine: Engine):
    for fresh in (False, True):
        claim = engine.claim() if fresh else engine.active("a")
        part = ["a", claim.token, claim.run, 1, [["content", "x"]]]
        engine.call("stream_append", parts=[part])
        engine.call("job_step", id="a", token=claim.token, key="step:x#1", entry="1")
        engine.finish(claim, "failed", None, {"reason": "error"})

        _retry(engine, fresh=fresh)

        names = {name for name in engine.names() if name.startswith("job:a:")}
        assert names == (set() if fresh else {"job:a:steps"})
        assert engine.job("a")["satellites"] == ("" if fresh else "steps")


def test_late_outcome_of_the_ended_run_is_stale(engine: Engine):
    claim = engine.active("a")
    engine.finish(claim, "failed", None, {"reason": "error"})
    _retry(engine)

    assert engine.finish(claim, "completed") == "s"
    assert engine.where("a") == ["waiting"]


@pytest.mark.parametrize("state", ["waiting", "active", "completed", "delayed"])
def test_other_states_are_refused_and_unchanged(engine: Engine, state: str):
    engine.add("a", delay_ms=5000 if state == "delayed" else 0)
    if state in ("active", "completed"):
        claim = engine.claim()
        if state == "completed":
            engine.finish(claim)
    before = engine.dump()

    with refused(f"STATE a {state} failed or cancelled"):
        _retry(engine)
    assert engine.dump() == before


def test_second_retry_is_refused_but_a_repeat_of_the_first_is_not(engine: Engine):
    engine.ended("a")
    _retry(engine, nonce="x")
    before = engine.dump()

    assert _retry(engine, nonce="x", repeat=True) == 1
    with refused("STATE a waiting "):
        _retry(engine, nonce="y", repeat=True)

    assert engine.dump() == before


def test_unknown_and_removed_jobs_are_gone(engine: Engine):
    with refused("GONE a"):
        _retry(engine)
    engine.ended("a", keep_failed="0:")
    with refused("GONE a"):
        _retry(engine)
    with refused("ARG nonce "):
        _retry(engine, nonce=1)
