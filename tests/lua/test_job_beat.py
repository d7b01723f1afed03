from __future__ import annotations

import pytest

from tests.lua.engine import LEASE, Engine, refused


def _beat(engine: Engine, **args: object) -> list[object]:
    return engine.packed("job_beat", **{"worker": "w1", "leases": [], **args})


def test_beat_pushes_the_lease_forward(engine: Engine):
    claim = engine.active()
    engine.advance(900)

    lost, cancelled, *_ = _beat(engine, leases=[["a", claim.token]])

    assert (lost, cancelled) == ([], [])
    assert abs(engine.score("active", "a") - engine.now() - LEASE) < 500


def test_beat_uses_the_jobs_own_lease(engine: Engine):
    claim = engine.active(lock_ms=77_000)

    _beat(engine, leases=[["a", claim.token]])

    assert abs(engine.score("active", "a") - engine.now() - 77_000) < 500


@pytest.mark.parametrize("how", ["ended", "reclaimed", "unknown", "forged"])
def test_beat_names_what_is_lost_and_does_not_touch_it(engine: Engine, how: str):
    claim = engine.active()
    token = claim.token
    if how == "ended":
        engine.finish(claim)
    elif how == "reclaimed":
        engine.advance(2000)
        engine.turn("w2")
        engine.advance(2000)
        engine.turn("w2")
        assert engine.claim("w2").token != token
    elif how == "forged":
        token = "9-forged"
    id = "nobody" if how == "unknown" else "a"
    before = {index: engine.index(index) for index in ("active", "waiting", "completed")}
    score = engine.server.cmd("ZSCORE", f"{engine.root}:active", "a")

    lost, *_ = _beat(engine, leases=[[id, token]])

    assert lost == [id]
    assert {index: engine.index(index) for index in before} == before
    assert engine.server.cmd("ZSCORE", f"{engine.root}:active", "a") == score


def test_beat_tells_of_a_cancelled_job_and_still_renews_it(engine: Engine):
    claim = engine.active()
    engine.call("job_cancel", id="a")
    engine.advance(500)

    lost, cancelled, *_ = _beat(engine, leases=[["a", claim.token]])

    assert (lost, cancelled) == ([], ["a"])
    assert engine.score("active", "a") > engine.now() + LEASE - 200


def test_started_is_stored_once_reported(engine: Engine):
    claim = engine.active()

    _beat(engine, started=[["a", claim.token, 250]])

    assert engine.job("a")["started_run"] == "1"
    assert abs(int(engine.job("a")["started_at"]) - engine.now() + 250) < 200


def test_started_with_an_old_token_is_ignored(engine: Engine):
    engine.active()
    before = engine.job("a")

    _beat(engine, started=[["a", "9-forged", 250], ["nobody", "x", 1]])

    assert engine.job("a") == before


def test_two_beats_leave_what_one_leaves(engine: Engine):
    claim = engine.active()
    _beat(engine, leases=[["a", claim.token]])
    before = engine.names(), engine.job("a")

    _beat(engine, leases=[["a", claim.token]])

    assert (engine.names(), engine.job("a")) == before
    assert engine.names() - {"workers", "turn:w1"} == {"job:a", "active", "meta", "events", "wake"}


@pytest.mark.parametrize(
    "args",
    [
        {"worker": 1},
        {"leases": "x"},
        {"leases": [["a"]]},
        {"leases": [[1, "t"]]},
        {"leases": ["a"]},
        {"started": [["a", "t"]]},
        {"started": [["a", "t", "x"]]},
        {"started": [["a", "t", 1.5]]},
        {"leases": [["a", "t"]] * 1001},
    ],
)
def test_bad_arguments_are_refused_before_anything_is_written(
    engine: Engine, args: dict[str, object]
):
    with refused(f"ARG {next(iter(args))} "):
        _beat(engine, **args)
    assert engine.names() == set()
