from __future__ import annotations

import logging
import math
from datetime import timedelta

import pytest

from glidemq_core.errors import InvalidOption, Throttled
from glidemq_core.retry import Backoff, as_backoff, delay_after


def _delay(
    backoff: Backoff | None, attempt: int = 1, error: BaseException | None = None, **more: object
) -> float:
    wire = None if backoff is None else backoff.to_wire()
    return delay_after(wire, attempt, error or ValueError(), {}, **more)  # type: ignore[arg-type]


def test_exponential_doubles_up_to_its_cap():
    backoff = Backoff(delay=2, max_delay=15)

    assert [_delay(backoff, attempt) for attempt in (1, 2, 3, 4, 5, 1000)] == [2, 4, 8, 15, 15, 15]


def test_fixed_stays():
    assert [_delay(Backoff(type="fixed", delay=3), attempt) for attempt in (1, 9)] == [3, 3]


def test_jitter_takes_off_a_random_fraction():
    backoff = Backoff(type="fixed", delay=10, jitter=0.2)

    assert [_delay(backoff, rng=lambda part=part: part) for part in (0.0, 0.5, 1.0)] == [10, 9, 8]


def test_no_backoff_waits_for_nothing_but_the_error():
    assert _delay(None) == 0
    assert _delay(None, error=Throttled("x", retry_after=7)) == 7


def test_error_says_the_least_that_is_waited():
    backoff = Backoff(type="fixed", delay=5, jitter=1.0)

    assert _delay(backoff, error=Throttled("x", retry_after=7), rng=lambda: 1.0) == 7
    assert _delay(backoff, error=Throttled("x", retry_after=2), rng=lambda: 0.0) == 5


@pytest.mark.parametrize("value", [None, "7", float("nan"), -1, 0])
def test_nonsense_in_the_error_counts_for_nothing(value: object):
    error = ValueError()
    error.retry_after = value  # type: ignore[attr-defined]

    assert _delay(Backoff(type="fixed", delay=5), error=error) == 5


def test_function_of_the_workers_is_asked_and_capped():
    def mine(attempt: int, error: BaseException) -> timedelta:
        return timedelta(seconds=attempt * 10 if isinstance(error, ValueError) else 1)

    wire = Backoff(type="mine", max_delay=25).to_wire()

    assert [delay_after(wire, attempt, ValueError(), {"mine": mine}) for attempt in (2, 3)] == [
        20,
        25,
    ]


def test_unknown_function_counts_as_exponential():
    assert [_delay(Backoff(type="mine"), attempt) for attempt in (1, 3)] == [1, 4]


@pytest.mark.parametrize("answer", [-1, "x", None, float("nan"), ZeroDivisionError()])
def test_function_that_fails_does_not_lose_the_job(
    answer: object, caplog: pytest.LogCaptureFixture
):
    def mine(attempt: int, error: BaseException) -> float:
        if isinstance(answer, Exception):
            raise answer
        return answer  # type: ignore[return-value]

    with caplog.at_level(logging.ERROR):
        delay = delay_after(Backoff(type="mine").to_wire(), 2, ValueError(), {"mine": mine})

    assert delay == 2
    assert "mine" in caplog.text


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("type", ""),
        ("type", 3),
        ("type", "x" * 257),
        ("delay", -1),
        ("max_delay", "1"),
        ("jitter", 1.1),
        ("jitter", True),
        ("jitter", "0"),
    ],
)
def test_bad_backoff_is_refused_by_name(field: str, value: object):
    with pytest.raises(InvalidOption) as caught:
        Backoff(**{field: value})  # type: ignore[arg-type]

    assert caught.value.field == f"backoff.{field}"


def test_short_forms():
    backoff = Backoff(delay=3)

    assert as_backoff(None) is None
    assert as_backoff(backoff) is backoff
    assert as_backoff(3) == as_backoff(timedelta(seconds=3)) == Backoff(type="fixed", delay=3)
    assert as_backoff("mine") == Backoff(type="mine")


@pytest.mark.parametrize("value", ["", "x" * 257, -1, [3], True])
def test_what_is_no_backoff_is_refused_by_name(value: object):
    with pytest.raises(InvalidOption) as caught:
        as_backoff(value, "jobs[1].backoff")  # type: ignore[arg-type]

    assert caught.value.field == "jobs[1].backoff"


class Asks(Exception):
    def __init__(self, retry_after: float) -> None:
        self.retry_after = retry_after


@pytest.mark.parametrize("asked", [3601.0, 3e9, 10**400, math.inf])
def test_error_that_asks_for_years_is_given_an_hour_and_that_is_said(
    asked: float, caplog: pytest.LogCaptureFixture
):
    assert delay_after(None, 1, Asks(asked), {}) == 3600
    assert delay_after(None, 1, Asks(asked), {}, max_retry_after=60) == 60
    assert "Asks asks to wait" in caplog.text
    assert "max_retry_after" in caplog.text


@pytest.mark.parametrize("asked", [0.5, 3600])
def test_error_that_asks_for_less_is_given_it_and_nothing_is_said(
    asked: float, caplog: pytest.LogCaptureFixture
):
    assert delay_after(None, 1, Asks(asked), {}) == asked
    assert caplog.text == ""


@pytest.mark.parametrize("asked", [-1, 0, math.nan, "7"])
def test_what_is_no_wait_is_none(asked: float):
    assert delay_after(None, 1, Asks(asked), {}) == 0
