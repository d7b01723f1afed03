from __future__ import annotations

import pytest

from tests.lua.engine import Claim, Engine, refused


def _signal(engine: Engine, signal: str = "s1", name: str = "go", message: str = "1") -> int:
    return engine.call("job_signal", id="a", signal=signal, name=name, message=message)


def _suspend(engine: Engine, name: str = "go") -> None:
    claim = engine.active()
    engine.call("job_wait", id="a", token=claim.token, key="signal:x#1", name=name)
    engine.finish(claim, "suspended", None, {})
    assert engine.where("a") == ["suspended"]


def test_signal_is_kept_until_somebody_waits(engine: Engine):
    engine.add("a")
    before = engine.names()

    assert _signal(engine) == 1

    assert engine.where("a") == ["waiting"]
    assert engine.names() - before == {"job:a:mailbox"}
    assert engine.job("a")["satellites"] == "mailbox"
    assert engine.events()[-1] == ("signal", "a")


@pytest.mark.parametrize("name", ["go", "*"])
def test_signal_wakes_the_job_that_waits_for_it(engine: Engine, name: str):
    _suspend(engine, name)

    _signal(engine, message='"yes"')

    assert engine.where("a") == ["waiting"]
    assert engine.call("job_journal", id="a")[1] == b'"yes"'


def test_signalled_job_goes_back_to_its_place(engine: Engine):
    _suspend(engine)
    engine.add("later")

    _signal(engine)

    assert engine.score("waiting", "a") < engine.score("waiting", "later")


def test_signal_of_another_name_does_not(engine: Engine):
    _suspend(engine)

    _signal(engine, name="stop")

    assert engine.where("a") == ["suspended"]


def test_signal_sent_twice_is_one_message(engine: Engine):
    engine.add("a")
    _signal(engine)
    before = {**engine.dump(), "events": None}

    assert _signal(engine, message="2") == 0

    assert {**engine.dump(), "events": None} == before


def test_signal_that_was_taken_is_not_taken_again(engine: Engine):
    _suspend(engine)
    _signal(engine)

    assert _signal(engine) == 0
    claim = engine.claim()
    assert (
        engine.call("job_wait", id="a", token=claim.token, key="signal:go#2", name="go")[0] == b""
    )


def test_full_mailbox_refuses_and_changes_nothing(engine: Engine):
    engine.add("a")
    for i in range(100):
        _signal(engine, f"s{i}")
    before = engine.dump()

    with refused("STATE a waiting not full: 100 signals wait in its mailbox"):
        _signal(engine, "more")
    assert engine.dump() == before


@pytest.mark.parametrize("state", ["completed", "failed", "cancelled"])
def test_ended_job_takes_no_signal(engine: Engine, state: str):
    engine.ended("a", state)
    before = engine.dump()

    with refused(f"STATE a {state} not ended"):
        _signal(engine)
    assert engine.dump() == before


def test_unknown_job_is_gone(engine: Engine):
    with refused("GONE a"):
        _signal(engine)
    with refused("ARG name "):
        engine.call("job_signal", id="a", signal="s", message="1")
    assert engine.names() == set()


def test_signal_after_the_deadline_is_late_although_nobody_has_looked(engine: Engine):
    claim = engine.active()
    _wait(engine, claim, "signal:go#1")
    engine.finish(claim, "suspended", None, {})
    engine.advance(501)

    assert _signal(engine, message='"late"') == 1

    assert engine.where("a") == ["waiting"]
    assert engine.call("job_journal", id="a")[1] == b'{"timeout":true}'
    again = engine.claim()
    assert _wait(engine, again, "signal:go#2") == b'"late"'  # kept for the next wait


def test_signal_that_came_in_time_is_taken_after_the_deadline(engine: Engine):
    claim = engine.active()
    _wait(engine, claim, "signal:go#1")
    _signal(engine, message='"in time"')
    engine.advance(501)

    engine.finish(claim, "suspended", None, {})

    assert engine.call("job_journal", id="a")[1] == b'"in time"'


def test_late_signal_is_not_taken_by_a_run_that_comes_back_to_its_wait(engine: Engine):
    claim = engine.active()
    _wait(engine, claim, "signal:go#1")
    engine.advance(501)
    _signal(engine, message='"late"')

    assert _wait(engine, claim, "signal:go#1") == b'{"timeout":true}'


def _wait(engine: Engine, claim: Claim, key: str) -> bytes:
    return engine.call("job_wait", id="a", token=claim.token, key=key, name="go", timeout_ms=500)[0]
