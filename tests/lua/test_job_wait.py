from __future__ import annotations

import pytest

from tests.lua.engine import Claim, Engine, refused

KEY = "signal:go#1"


def _wait(
    engine: Engine, claim: Claim, key: str = KEY, *, name: str | None = "go", **more: object
) -> tuple[str, int]:
    args = {"id": claim.id, "token": claim.token, "key": key, **more}
    entry, left = engine.call("job_wait", **(args if name is None else {**args, "name": name}))
    return entry.decode(), left


def _signal(engine: Engine, signal: str, message: str, name: str = "go") -> None:
    engine.call("job_signal", id="a", signal=signal, name=name, message=message)


def test_wait_takes_the_oldest_message_of_its_name_and_keeps_it(engine: Engine):
    claim = engine.active()
    _signal(engine, "1", '"other"', name="stop")
    _signal(engine, "2", '"first"')
    _signal(engine, "3", '"second"')

    assert _wait(engine, claim) == ('"first"', 0)
    assert _wait(engine, claim) == ('"first"', 0)
    assert _wait(engine, claim, "signal:go#2") == ('"second"', 0)
    assert _wait(engine, claim, "suspend:#1", name="*") == ('"other"', 0)


def test_wait_without_a_message_goes_on_until_its_first_deadline(engine: Engine):
    claim = engine.active()

    entry, left = _wait(engine, claim, timeout_ms=5000)
    engine.advance(1000)
    _, later = _wait(engine, claim, timeout_ms=60_000)

    assert (entry, left) == ("", 5000)
    assert 3000 < later <= 4000
    job = engine.job("a")
    assert (job["wait_key"], job["wait_name"], job["started_run"]) == (KEY, "go", "1")


def test_wait_without_a_deadline_has_none(engine: Engine):
    assert _wait(engine, engine.active()) == ("", -1)


def test_deadline_ends_a_wait_once_and_for_ever(engine: Engine):
    claim = engine.active()
    _wait(engine, claim, timeout_ms=500)
    engine.advance(600)

    assert _wait(engine, claim)[0] == '{"timeout":true}'
    _signal(engine, "late", '"late"')
    assert _wait(engine, claim)[0] == '{"timeout":true}'


def test_sleep_ends_at_its_first_deadline(engine: Engine):
    claim = engine.active()

    assert _wait(engine, claim, "sleep:#1", name=None, timeout_ms=500) == ("", 500)
    engine.advance(600)
    assert _wait(engine, claim, "sleep:#1", name=None, timeout_ms=500)[0] == '{"slept":true}'


def test_suspended_run_waits_and_comes_back_at_its_deadline(engine: Engine):
    claim = engine.active()
    _wait(engine, claim, timeout_ms=700)

    engine.finish(claim, "suspended", None, {})
    assert engine.where("a") == ["suspended"]
    assert abs(engine.score("suspended", "a") - engine.now() - 700) < 500
    engine.advance(1000)
    engine.turn("w2")

    assert engine.where("a") == ["waiting"]
    assert _wait(engine, engine.claim())[0] == '{"timeout":true}'


def test_message_that_came_before_the_suspension_keeps_the_job_going(engine: Engine):
    claim = engine.active()
    _wait(engine, claim)
    _signal(engine, "1", '"now"')

    engine.finish(claim, "suspended", None, {})

    assert engine.where("a") == ["waiting"]
    assert _wait(engine, engine.claim())[0] == '"now"'


def test_hundreds_of_messages_pass_while_one_of_another_name_stays(engine: Engine):
    claim = engine.active()
    _signal(engine, "stays", '"stays"', name="later")
    for i in range(250):
        _signal(engine, f"s{i}", str(i))
        assert _wait(engine, claim, f"signal:go#{i}")[0] == str(i)

    assert _wait(engine, claim, "signal:later#1", name="later")[0] == '"stays"'


def test_stale_and_unknown_runs_are_refused_without_a_trace(engine: Engine):
    claim = engine.active()
    engine.finish(claim)
    before = engine.dump()

    with refused("STALE a"):
        _wait(engine, claim)
    with refused("GONE b"):
        engine.call("job_wait", id="b", token="x", key=KEY)
    assert engine.dump() == before


@pytest.mark.parametrize(
    "args",
    [
        {"key": 1},
        {"timeout_ms": -1},
        {"timeout_ms": 1.5},
        {"timeout_ms": "x"},
        {"name": 1},
        {"reason": 1},
    ],
)
def test_bad_arguments_are_refused_before_anything_is_written(
    engine: Engine, args: dict[str, object]
):
    claim = engine.active()
    before = engine.dump()

    with refused(f"ARG {next(iter(args))} "):
        engine.call("job_wait", **{"id": "a", "token": claim.token, "key": KEY, **args})
    assert engine.dump() == before
