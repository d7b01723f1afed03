from __future__ import annotations

from tests.lua.engine import Engine, error_text, refused, report


def test_job_is_answered_with_its_usage_errors_and_score(engine: Engine):
    claim = engine.active(data="1")
    engine.call("job_usage", id="a", **report())
    engine.finish(claim, "retry", None, {"delay_ms": 5000, "error": error_text()})
    before = engine.dump()

    fields, usage, errors, score = engine.call("job_get", id="a")

    assert dict(zip(fields[::2], fields[1::2], strict=True))[b"data"] == b"1"
    assert usage[::2].count(b"tokens:input") == 1
    assert errors == [error_text().encode()]
    assert float(score) == engine.score("delayed", "a")
    assert engine.dump() == before


def test_unknown_and_removed_jobs_are_empty(engine: Engine):
    engine.ended("b", "completed", keep_completed="0:")

    for id in ("a", "b"):
        assert engine.call("job_get", id=id) == [[], [], [], b""]
    with refused("ARG id "):
        engine.call("job_get")
