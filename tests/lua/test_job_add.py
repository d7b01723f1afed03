from __future__ import annotations

import pytest

from tests.lua.engine import Engine, refused


def test_added_job_waits_with_what_it_was_given(engine: Engine):
    options = {"data": '{"x":1}', "options": '{"attempts":3}', "lock_ms": 700, "keep_failed": "3:"}

    assert engine.add("a", **options) == "a"

    job = engine.job("a")
    assert engine.where("a") == ["waiting"]
    assert {name: job[name] for name in options} == {**options, "lock_ms": "700"}
    assert job["state"] == "waiting"
    assert float(job["place"]) == engine.score("waiting", "a") == 1000 * 2**41 + 2**40 + 1
    assert abs(int(job["created_at"]) - engine.now()) < 1000


def test_adding_creates_no_other_keys(engine: Engine):
    engine.add("a", "b")

    assert engine.names() == {"job:a", "job:b", "waiting", "meta", "events", "wake"}
    assert engine.events() == [("added", "a"), ("added", "b")]


def test_delayed_job_is_delayed_from_the_servers_now(engine: Engine):
    engine.advance(123_456)

    engine.add("a", delay_ms=5000)

    assert engine.where("a") == ["delayed"]
    assert engine.job("a")["why"] == "delay"
    assert abs(engine.score("delayed", "a") - engine.now() - 5000) < 1000


def test_ttl_is_watched(engine: Engine):
    engine.add("a", ttl_ms=5000)

    assert engine.score("expiring", "a") == int(engine.job("a")["expires_at"])
    assert abs(engine.score("expiring", "a") - engine.now() - 5000) < 1000


def test_parent_waits_for_its_children(engine: Engine):
    engine.add("a", pending=2)

    assert engine.where("a") == ["waiting_children"]
    assert engine.job("a")["pending"] == "2"


def test_order_is_priority_then_age_and_lifo_comes_before_fifo(engine: Engine):
    engine.add("late", priority=2048)
    engine.add("first", "second")
    engine.add("lifo1", "lifo2", lifo=True)
    engine.add("urgent", priority=0)

    assert engine.index("waiting") == ["urgent", "lifo2", "lifo1", "first", "second", "late"]


def test_known_id_is_a_duplicate_and_stays_unchanged(engine: Engine):
    engine.add("a", data="1", custom=True, nonce="x")
    before = engine.job("a")

    assert engine.add("a", data="2", custom=True, nonce="y") == "d"

    assert engine.job("a") == before
    assert engine.index("waiting") == ["a"]


def test_same_id_twice_in_one_call_is_one_job(engine: Engine):
    assert engine.add("a", "b", "a") == "aad"
    assert engine.index("waiting") == ["a", "b"]


def test_repeated_add_is_one_job(engine: Engine):
    jobs = [{"id": "a", "name": "job"}, {"id": "b", "name": "job", "custom": True}]
    engine.call("job_add", jobs=jobs, nonce="x")
    before = engine.dump()

    assert engine.call("job_add", jobs=jobs, nonce="x", repeat=True) == b"rr"

    assert engine.dump() == before


def test_repeat_with_an_id_of_somebody_else_is_a_duplicate(engine: Engine):
    engine.add("a", custom=True, nonce="x")

    again = engine.call(
        "job_add", jobs=[{"id": "a", "name": "job", "custom": True}], nonce="y", repeat=True
    )

    assert again == b"d"


@pytest.mark.parametrize("custom", [False, True])
def test_repeated_add_does_not_bring_a_removed_job_back(engine: Engine, custom: bool):
    jobs = [{"id": "a", "name": "job", "custom": custom}]
    engine.call("job_add", jobs=jobs, nonce="x")
    engine.call("job_remove", id="a")

    assert engine.call("job_add", jobs=jobs, nonce="x", repeat=True) == b"r"

    assert "job:a" not in engine.names()


def test_removed_id_can_be_added_anew_even_if_that_call_is_repeated(engine: Engine):
    engine.add("a", custom=True, nonce="x")
    engine.call("job_remove", id="a")

    again = engine.call(
        "job_add", jobs=[{"id": "a", "name": "job", "custom": True}], nonce="y", repeat=True
    )

    assert again == b"a"
    assert engine.where("a") == ["waiting"]


def test_id_of_a_tombstone_is_free(engine: Engine):
    engine.ended("a", "completed", keep_completed="0:", custom=True)
    assert engine.job("a")["removed"] == "1"

    assert engine.add("a", custom=True, nonce="y") == "a"

    assert "removed" not in engine.job("a")
    assert engine.ttl("job:a") == -1


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("id", 7),
        ("id", None),
        ("name", None),
        ("priority", 1.5),
        ("priority", 2049),
        ("priority", -1),
        ("priority", float("nan")),
        ("delay_ms", -1),
        ("delay_ms", "1"),
        ("delay_ms", 2**53),
        ("ttl_ms", float("inf")),
        ("lock_ms", 0),
        ("pending", -1),
        ("options", {}),
        ("data", 3),
        ("keep_completed", 3),
        ("keep_failed", []),
        ("parent", 1),
    ],
)
def test_bad_field_is_named_and_nothing_is_written(engine: Engine, field: str, value: object):
    good = {"id": "a", "name": "job"}
    bad = {**good, "id": "b", field: value}

    with refused(f"ARG {field} "):
        engine.call("job_add", jobs=[good, bad], nonce="x")

    assert engine.names() == set()


def test_too_many_jobs_are_refused(engine: Engine):
    with refused("ARG jobs "):
        engine.add(*(f"j{i}" for i in range(257)))
