from __future__ import annotations

import pytest

from tests.lua.engine import Engine, refused

ON = "main/budget"


def _park(
    engine: Engine, id: str = "a", *, generation: int = 1, why: str = "budget", **more: object
) -> None:
    engine.finish(
        engine.active(id), "delayed", None, {"why": why, "on": ON, "generation": generation, **more}
    )


def _unpark(engine: Engine, *ids: str, generation: int = 2) -> list[int | bytes]:
    return engine.call("job_unpark", on=ON, generation=generation, ids=list(ids))


@pytest.mark.parametrize("why", ["budget", "throttled"])
def test_parked_job_goes_back_to_its_place(engine: Engine, why: str):
    _park(engine, why=why)
    place = float(engine.job("a")["place"])
    assert (engine.where("a"), engine.score("delayed", "a")) == (["delayed"], float("inf"))
    before = engine.names()

    assert _unpark(engine, "a") == [1]

    assert engine.score("waiting", "a") == place
    assert engine.names() - before <= {"waiting", "wake", f"generation:{ON}"}


def test_jobs_that_wait_for_something_else_stay(engine: Engine):
    _park(engine, "a", why="retry", delay_ms=5000)
    engine.add("b")

    assert _unpark(engine, "a", "b") == [0]
    assert (engine.where("a"), engine.where("b")) == (["delayed"], ["waiting"])


def test_jobs_that_have_ended_are_told_by_name(engine: Engine):
    _park(engine, "a")
    _park(engine, "b")
    engine.call("job_cancel", id="a")

    assert _unpark(engine, "a", "b", "nobody") == [1, b"a", b"nobody"]


def test_park_that_knows_an_older_generation_goes_straight_back(engine: Engine):
    _unpark(engine, generation=5)

    _park(engine, "a", generation=4)
    assert engine.where("a") == ["waiting"]

    engine.finish(engine.claim(), "delayed", None, {"why": "budget", "on": ON, "generation": 5})
    assert engine.where("a") == ["delayed"]


def test_budgets_that_came_and_went_leave_nothing_that_stays(engine: Engine):
    before = engine.names()
    for n in range(3):
        engine.call("job_unpark", on=f"main/{n}", generation=1, ids=[])

    left = engine.names() - before - {"meta"}
    assert left == {f"generation:main/{n}" for n in range(3)}
    assert all(0 < engine.server.cmd("TTL", f"{engine.root}:{name}") <= 86_400 for name in left)


def test_generation_does_not_go_back(engine: Engine):
    _unpark(engine, generation=5)
    _unpark(engine, generation=3)

    _park(engine, "a", generation=4)

    assert engine.where("a") == ["waiting"]


def test_unparking_twice_is_unparking_once(engine: Engine):
    _park(engine)
    _unpark(engine, "a")
    before = engine.dump()

    assert _unpark(engine, "a") == [0]
    assert engine.dump() == before


@pytest.mark.parametrize(
    "args", [{"on": 1}, {"generation": -1}, {"ids": "x"}, {"ids": ["a"] * 257}, {"ids": [1]}]
)
def test_bad_arguments_are_refused_before_anything_is_written(
    engine: Engine, args: dict[str, object]
):
    with refused(f"ARG {next(iter(args))} "):
        engine.call("job_unpark", **{"on": ON, "generation": 1, "ids": [], **args})
    assert engine.names() == set()
