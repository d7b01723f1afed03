from __future__ import annotations

import pytest

from tests.lua.engine import Engine, refused, report


def _usage(engine: Engine, id: str = "a") -> dict[str, str]:
    flat = engine.call("job_get", id=id)[1]
    texts = [part.decode() for part in flat]
    return dict(zip(texts[::2], texts[1::2], strict=True))


def _minute(engine: Engine) -> dict[str, str]:
    (row,) = engine.call(
        "queue_usage", first=engine.now() // 60_000 - 1, last=engine.now() // 60_000 + 1
    )[1:]
    texts = [part.decode() for part in row[1]]
    return dict(zip(texts[::2], texts[1::2], strict=True))


def test_calls_add_up_on_the_job_and_in_the_minute(engine: Engine):
    engine.active()
    before = engine.names()

    assert engine.call("job_usage", id="a", **report("a/1/1")) == 1
    assert engine.call("job_usage", id="a", **report("a/1/2", tokens={"input": 10}, costs={})) == 1

    usage = _usage(engine)
    assert (usage["tokens:input"], usage["tokens:output"], usage["costs:total"]) == (
        "13",
        "4",
        "1000000",
    )
    assert usage["calls"] == "2"
    assert {"call:a/1/1", "call:a/1/2"} <= usage.keys()
    assert _minute(engine) == {
        "calls:m\n": "2",
        "tokens:m\ninput": "13",
        "tokens:m\noutput": "4",
        "costs:m\ntotal": "1000000",
    }
    new = {name for name in engine.names() - before if not name.startswith(("minute:", "hour:"))}
    assert new == {"job:a:usage", "models"}
    assert engine.job("a")["satellites"] == "usage"
    assert engine.events()[-2:] == [("usage", "a"), ("+", report("a/1/2")["entry"])]


def test_call_counts_once(engine: Engine):
    engine.active()
    engine.call("job_usage", id="a", **report())
    before = engine.dump()

    assert engine.call("job_usage", id="a", **report()) == 0

    assert engine.dump() == before


def test_usage_of_a_lost_run_is_booked(engine: Engine):
    claim = engine.active()
    engine.finish(claim)

    assert engine.call("job_usage", id="a", **report()) == 1


def test_large_sums_are_exact(engine: Engine):
    engine.active()
    for i, amount in enumerate((2**52, 2**51, 1)):
        engine.call("job_usage", id="a", **report(f"a/1/{i}", costs={"total": amount}))

    assert _usage(engine)["costs:total"] == str(2**52 + 2**51 + 1)


def test_models_over_two_hundred_are_counted_together(engine: Engine):
    engine.active()
    for i in range(202):
        engine.call("job_usage", id="a", **report(f"a/1/{i}", model=f"m{i}"))

    minute = _minute(engine)

    assert minute["calls:m199\n"] == "1"
    assert "calls:m200\n" not in minute
    assert minute["calls:other\n"] == "2"


def test_minutes_and_models_expire(engine: Engine):
    engine.active()
    engine.call("job_usage", id="a", **report())

    names = [name for name in engine.names() if name.startswith("minute:")]
    assert len(names) == 1
    assert 0 < engine.ttl(names[0]) <= 25 * 3_600_000
    assert 0 < engine.ttl("models") <= 25 * 3_600_000


@pytest.mark.parametrize(
    "args",
    [
        {"call": 1},
        {"model": None},
        {"entry": {}},
        {"tokens": {"input": -1}},
        {"tokens": {"input": 1.5}},
        {"tokens": {"input": float("nan")}},
        {"tokens": {"input": 2**53}},
        {"tokens": {"input": "3"}},
        {"costs": {"total": -1}},
        {"costs": 7},
    ],
)
def test_bad_arguments_are_refused_before_anything_is_written(
    engine: Engine, args: dict[str, object]
):
    engine.active()
    before = engine.dump()

    with refused(f"ARG {next(iter(args))} "):
        engine.call("job_usage", id="a", **report(**args))
    assert engine.dump() == before


def test_unknown_and_removed_jobs_are_gone(engine: Engine):
    with refused("GONE a"):
        engine.call("job_usage", id="a", **report())
    engine.ended("a", "completed", keep_completed="0:")
    with refused("GONE a"):
        engine.call("job_usage", id="a", **report())
