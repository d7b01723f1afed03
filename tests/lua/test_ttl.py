"""A ttl is about the time before the first start: it means nothing to a job that has ended."""

from __future__ import annotations

import pytest

from tests.lua.engine import Engine, error_text

TTL = 2000


def _let_it_pass(engine: Engine) -> None:
    engine.advance(TTL)
    engine.turn("w9")


@pytest.mark.parametrize("state", ["completed", "failed", "cancelled"])
def test_ended_job_stays_when_its_ttl_passes(engine: Engine, state: str):
    extra = {"reason": "error", "error": error_text()} if state == "failed" else None
    claim = engine.active("a", ttl_ms=TTL)
    if state == "cancelled":
        engine.call("job_cancel", id="a")
    engine.finish(claim, state, None, extra)

    _let_it_pass(engine)

    assert engine.where("a") == [state]
    assert engine.job("a")["state"] == state
    assert engine.index("expiring") == []


def test_ended_job_stays_for_as_long_as_it_is_to_be_kept(engine: Engine):
    engine.finish(engine.active("a", ttl_ms=TTL, keep_completed=f":{3 * TTL}"))

    _let_it_pass(engine)
    assert engine.where("a") == ["completed"]

    _let_it_pass(engine)
    _let_it_pass(engine)
    assert engine.where("a") == []
    assert "job:a" not in engine.names()


def test_ending_of_a_job_removed_at_once_stays_readable_when_its_ttl_passes(engine: Engine):
    engine.finish(engine.active("a", ttl_ms=TTL, keep_completed="0:"))

    _let_it_pass(engine)

    assert engine.job("a")["state"] == "completed"


def test_ended_job_stays_when_the_time_of_an_earlier_one_of_its_id_passes(engine: Engine):
    engine.finish(engine.active("a", custom=True, ttl_ms=TTL, keep_completed="0:"))
    engine.finish(engine.active("a", custom=True))

    _let_it_pass(engine)

    assert engine.where("a") == ["completed"]


def test_job_that_failed_again_stays_for_as_long_as_it_is_to_be_kept_then(engine: Engine):
    no = (None, {"reason": "error", "error": error_text()})
    engine.finish(engine.active("a", keep_failed=f":{TTL}"), "failed", *no)
    engine.call("job_retry", id="a", nonce="x")
    assert "remove_at" not in engine.job("a")

    engine.finish(engine.claim(), "failed", *no)
    _let_it_pass(engine)

    assert engine.where("a") == []
