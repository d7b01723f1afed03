from __future__ import annotations

from tests.lua.engine import Engine


def test_added_job_waits_with_what_it_was_given(engine: Engine):
    assert engine.add("a", data='{"x":1}', options='{"attempts":3}') == "a"

    assert engine.index("waiting") == ["a"]
    job = engine.job("a")
    assert job["state"] == "waiting"
