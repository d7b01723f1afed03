from __future__ import annotations

import pytest

from tests.lua.engine import LEASE, Claim, Engine, refused


def _update(engine: Engine, claim: Claim, n: int = 1, **more: object) -> int:
    return engine.call("job_update", id=claim.id, token=claim.token, n=n, **more)


def _log(engine: Engine) -> list[bytes]:
    return engine.call("job_log", id="a", start=0, limit=1000)


def test_update_stores_progress_data_and_log(engine: Engine):
    claim = engine.active(data="1")
    before = engine.names()

    assert _update(engine, claim, progress="0.5", data="2", log=["one", "two"]) == 1

    job = engine.job("a")
    assert (job["progress"], job["data"], job["started_run"]) == ("0.5", "2", "1")
    assert _log(engine) == [b"one", b"two"]
    assert engine.names() - before == {"job:a:log"}
    assert job["satellites"] == "log"
    assert engine.events()[-1] == ("progress", "a")


def test_update_that_was_applied_is_not_applied_again(engine: Engine):
    claim = engine.active()
    _update(engine, claim, 2, log=["one"])
    before = engine.dump()

    assert _update(engine, claim, 2, log=["one"]) == 0
    assert _update(engine, claim, 1, progress="0") == 0

    assert engine.dump() == before
    assert _update(engine, claim, 3, log=["two"]) == 1


def test_next_run_counts_its_updates_anew(engine: Engine):
    claim = engine.active()
    _update(engine, claim, 9, log=["one"])
    engine.finish(claim, "retry", None, {"delay_ms": 0})

    assert _update(engine, engine.claim(), 1, log=["two"]) == 1
    assert _log(engine) == [b"one", b"two"]


def test_log_keeps_its_last_thousand_lines(engine: Engine):
    claim = engine.active()
    for n in (1, 2):
        _update(engine, claim, n, log=[f"{n}.{i}" for i in range(600)])

    lines = _log(engine)

    assert (len(lines), lines[0], lines[-1]) == (1000, b"1.200", b"2.599")


def test_stale_and_unknown_runs_are_refused_without_a_trace(engine: Engine):
    claim = engine.active()
    engine.finish(claim, "retry", None, {"delay_ms": 0})
    before = engine.dump()

    with refused("STALE a"):
        _update(engine, claim, progress="1", log=["x"])
    with refused("GONE b"):
        engine.call("job_update", id="b", token="x", n=1)
    assert engine.dump() == before


@pytest.mark.parametrize(
    "args",
    [
        {"n": 0},
        {"n": 1.5},
        {"log": "x"},
        {"log": [1]},
        {"log": ["x"] * 1001},
        {"progress": 1},
        {"data": {}},
    ],
)
def test_bad_arguments_are_refused_before_anything_is_written(
    engine: Engine, args: dict[str, object]
):
    claim = engine.active()
    before = engine.dump()

    with refused(f"ARG {next(iter(args))} "):
        engine.call(
            "job_update", **{"id": "a", "token": claim.token, "n": 1, "log": ["good"], **args}
        )
    assert engine.dump() == before


def test_ledger_of_a_run_is_noted_whatever_the_count_of_updates(engine: Engine):
    claim = engine.active()
    _update(engine, claim, 5)

    assert _update(engine, claim, 4, ledger="other") == 0

    assert engine.job("a")["ledger"] == "other"
    assert engine.call("queue_ledgers") == [b"other"]


def test_noted_ledger_is_told_when_the_lease_is_lost(engine: Engine):
    claim = engine.active()
    _update(engine, claim, ledger="main")
    for _ in range(2):  # never silent for so long that time would seem to have stood still
        engine.advance(LEASE)
        engine.turn("w2")

    ((_, flat, *_),) = engine.call("outbox_read", limit=10)
    entry = dict(zip(flat[::2], flat[1::2], strict=True))
    assert (entry[b"kind"], entry[b"ledger"], entry[b"job"]) == (b"lapse", b"main", b"a")
    assert entry[b"run"].startswith(b"a/1.")
    assert 0 <= engine.now() - int(entry[b"started"]) <= 3 * LEASE


def test_ledger_of_another_type_is_refused(engine: Engine):
    claim = engine.active()
    with refused("ARG"):
        _update(engine, claim, ledger=5)
