from __future__ import annotations

import dataclasses
import json
from datetime import timedelta
from typing import Any

import pytest

from glidemq_core.errors import InvalidOption, PayloadTooLarge
from glidemq_core.options import Keep, NewJob, keep_text, to_wire
from glidemq_core.retry import Backoff


def _wire(**options: Any) -> dict[str, Any]:
    return to_wire(NewJob(name="n", **options))


def test_plain_job_travels_light():
    wire = _wire()

    assert wire.keys() == {"name", "id"}
    assert len(wire["id"]) == 20


def test_own_id_is_marked_as_such():
    wire = _wire(job_id="mine")

    assert (wire["id"], wire["custom"]) == ("mine", True)


def test_what_the_server_acts_on_is_beside_what_the_worker_reads():
    wire = _wire(
        data={"x": 1},
        delay=1.5,
        priority=7,
        lifo=True,
        attempts=3,
        backoff=2,
        timeout=timedelta(minutes=1),
        idle_timeout=5,
        lock_duration=10,
        ttl=60,
        fallbacks=[{"model": "b", "provider": "p"}],
        remove_on_complete=True,
        remove_on_fail=Keep(count=5, age=60),
    )
    options = json.loads(wire.pop("options"))

    del wire["id"]
    assert wire == {
        "name": "n",
        "data": '{"x":1}',
        "delay_ms": 1500,
        "priority": 7,
        "lifo": True,
        "lock_ms": 10_000,
        "ttl_ms": 60_000,
        "keep_completed": "0:",
        "keep_failed": "5:60000",
    }
    assert options == {
        "attempts": 3,
        "backoff": {"type": "fixed", "delay": 2.0, "max_delay": 3600.0, "jitter": 0.0},
        "timeout": 60.0,
        "idle_timeout": 5.0,
        "fallbacks": [{"model": "b", "provider": "p"}],
    }


def test_defaults_are_not_sent():
    assert _wire(delay=0, priority=1000, attempts=1, fallbacks=[], budgets=[]).keys() == {
        "name",
        "id",
    }


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", ""),
        ("name", "a:b"),
        ("job_id", "a{b"),
        ("job_id", "x" * 257),
        ("job_id", 7),
        ("delay", -1),
        ("delay", float("nan")),
        ("delay", "1"),
        ("priority", 1.5),
        ("priority", 2049),
        ("priority", -1),
        ("priority", True),
        ("priority", "high"),
        ("priority", 1000.0),
        ("lifo", 1),
        ("lifo", None),
        ("attempts", 0),
        ("attempts", True),
        ("attempts", 1.0),
        ("backoff", ""),
        ("backoff", []),
        ("timeout", 0),
        ("idle_timeout", "x"),
        ("lock_duration", 0.05),
        ("lock_duration", 86_401),
        ("ttl", 0),
        ("stop_when_no_readers", 0),
        ("data", object()),
        ("data", float("inf")),
        ("remove_on_complete", "yes"),
        ("remove_on_fail", 1.5),
        ("fallbacks", "model"),
        ("budgets", "b"),
        ("budgets", 7),
        ("budgets", None),
        ("budgets", ["b"] * 17),
        ("estimate", 5),
    ],
)
def test_bad_option_is_named(field: str, value: object):
    with pytest.raises(InvalidOption) as caught:
        to_wire(dataclasses.replace(NewJob(name="n"), **{field: value}), "jobs[3].")

    assert caught.value.field == f"jobs[3].{field}"


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"fallbacks": [{"model": "a"}, {}]}, "fallbacks[1].model"),
        ({"fallbacks": [{"model": ""}]}, "fallbacks[0].model"),
        ({"fallbacks": [{"model": "a", "temperature": 1}]}, "fallbacks[0]"),
        ({"fallbacks": ["a"]}, "fallbacks[0]"),
        ({"budgets": ["a", ""]}, "budgets[1]"),
        ({"estimate": {"tokens": -1}}, "estimate.tokens"),
        ({"estimate": {"cost": "x"}}, "estimate.cost"),
        ({"estimate": {"time": 1}}, "estimate"),
        ({"remove_on_fail": Keep(count=-1)}, "remove_on_fail.count"),
        ({"remove_on_complete": Keep(age=-1)}, "remove_on_complete.age"),
        ({"ledger": "a:b", "budgets": ["x"]}, "ledger"),
    ],
)
def test_bad_part_of_an_option_is_named(options: dict[str, Any], field: str):
    with pytest.raises(InvalidOption) as caught:
        _wire(**options)

    assert caught.value.field == field


def test_what_is_no_job_is_refused():
    with pytest.raises(InvalidOption, match=r"jobs\[1\]"):
        to_wire({"name": "n"}, "jobs[1].")  # type: ignore[arg-type]


def test_data_of_a_mebibyte_is_the_most():
    _wire(data="x" * (1_048_576 - 2))

    with pytest.raises(PayloadTooLarge) as caught:
        _wire(data="x" * (1_048_576 - 1))
    assert (caught.value.field, caught.value.size) == ("data", 1_048_577)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, None),
        (False, ":"),
        (True, "0:"),
        (0, "0:"),
        (7, "7:"),
        (Keep(), ":"),
        (Keep(count=7), "7:"),
        (Keep(age=1.5), ":1500"),
        (Keep(age=0), ":1"),
        (Keep(count=7, age=timedelta(days=1)), "7:86400000"),
    ],
)
def test_retention_as_a_text(value: Any, text: str | None):
    assert keep_text(value, "keep") == text


def test_backoff_object_travels_whole():
    wire = _wire(backoff=Backoff(type="mine", delay=2, max_delay=9, jitter=0.5))

    assert json.loads(wire["options"])["backoff"] == {
        "type": "mine",
        "delay": 2.0,
        "max_delay": 9.0,
        "jitter": 0.5,
    }
