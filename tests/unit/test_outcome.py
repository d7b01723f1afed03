from __future__ import annotations

import json
from typing import Any

import pytest

from glidemq_core import outcome as outcomes
from glidemq_core.errors import (
    BudgetExceeded,
    CostUnknown,
    JobTimeout,
    ParkIgnored,
    Throttled,
    UnrecoverableError,
)
from glidemq_core.outcome import (
    Cancelled,
    Completed,
    Delayed,
    Dropped,
    Failed,
    Released,
    Retry,
    Suspended,
    WaitingChildren,
)
from glidemq_core.retry import Backoff


class Refused(Exception):
    retryable = False


class Elsewhere(Exception):
    fallback = True


def _of_error(error: BaseException, *, attempt: int = 1, **options: Any) -> outcomes.Outcome:
    return outcomes.of_error(error, attempt=attempt, options=options, backoffs={})


def _line(outcome: outcomes.Outcome, **more: Any) -> list[object]:
    return outcomes.to_wire(outcome, job_id="a", token="t", ago=0.5, **more)


# -- what the handler returned --------------------------------------------------------------------------------------


def test_returned_value_is_the_result():
    assert outcomes.of_result({"x": [1, None]}, 1) == Completed('{"x":[1,null]}')
    assert outcomes.of_result(None, 1) == Completed()


@pytest.mark.parametrize(
    "value", [Delayed("sleep", 3), Suspended(5), WaitingChildren(), Cancelled()]
)
def test_returned_outcome_is_that_outcome(value: object):
    assert outcomes.of_result(value, 1) is value


@pytest.mark.parametrize("value", [object(), float("nan"), "x" * 2_000_000])
def test_result_that_can_not_be_stored_fails_the_job_with_the_reason(value: object):
    outcome = outcomes.of_result(value, 2)

    assert isinstance(outcome, Failed)
    assert outcome.reason == "unrecoverable"
    assert "result=" in json.loads(outcome.error)["message"]
    assert json.loads(outcome.error)["attempt"] == 2


# -- what the handler raised ----------------------------------------------------------------------------------------


def test_error_is_tried_again_while_attempts_are_left():
    options = {"attempts": 3, "backoff": Backoff(type="fixed", delay=4).to_wire()}

    first, last = (
        _of_error(ValueError("no"), attempt=2, **options),
        _of_error(ValueError("no"), attempt=3, **options),
    )

    assert isinstance(first, Retry)
    assert first.delay == 4
    assert isinstance(last, Failed)
    assert last.reason == "error"


def test_job_is_tried_once_where_nothing_is_said():
    assert isinstance(_of_error(ValueError()), Failed)


@pytest.mark.parametrize("error", [UnrecoverableError("x"), ParkIgnored("x"), Refused("x")])
def test_error_that_can_not_be_retried_fails_at_once(error: BaseException):
    outcome = _of_error(error, attempts=9)

    assert isinstance(outcome, Failed)
    assert outcome.reason == "unrecoverable"


def test_last_timeout_says_so():
    outcome = _of_error(JobTimeout("a", limit=3))

    assert isinstance(outcome, Failed)
    assert outcome.reason == "timeout"
    assert isinstance(_of_error(JobTimeout("a", limit=3), attempts=2), Retry)


def test_exceeded_budget_fails_and_a_full_limiter_sends_back():
    exceeded = BudgetExceeded("b", cap="cost.total", limit=1, used=1, reserved=0, asked=1)

    failed, sent_back = (
        _of_error(exceeded, attempts=9),
        _of_error(Throttled("x", retry_after=7), attempts=1),
    )

    assert isinstance(failed, Failed)
    assert failed.reason == "budget"
    assert sent_back == Delayed("throttled", 7)


def test_budget_that_can_not_tell_fails_the_job_as_one_that_is_exceeded():
    failed = _of_error(CostUnknown("b", cap="cost.total"), attempts=9)

    assert isinstance(failed, Failed)
    assert failed.reason == "budget"


def test_error_of_a_model_moves_on_to_the_next_fallback_and_stays_at_the_last():
    options = {"attempts": 9, "fallbacks": [{"model": "b"}, {"model": "c"}]}

    found = [
        outcomes.of_error(
            Elsewhere(), attempt=1, options=options, backoffs={}, fallback_index=index
        )
        for index in (0, 1, 2)
    ]

    assert [outcome.fallback for outcome in found if isinstance(outcome, Retry)] == [1, 2, 2]
    plain = _of_error(Elsewhere(), attempts=9)
    assert isinstance(plain, Retry)
    assert plain.fallback is None


def test_error_that_is_hopeless_here_goes_on_elsewhere_while_there_is_an_elsewhere():
    class Unknown(Exception):  # as a vendor's "no such model"
        retryable, fallback = False, True

    options = {"attempts": 9, "fallbacks": [{"model": "b"}]}
    first, second = (
        outcomes.of_error(Unknown(), attempt=1, options=options, backoffs={}, fallback_index=index)
        for index in (0, 1)
    )

    assert isinstance(first, Retry)
    assert first.fallback == 1
    assert isinstance(second, Failed)
    assert second.reason == "unrecoverable"
    assert isinstance(_of_error(Unknown(), attempts=9), Failed)


@pytest.mark.parametrize("asked", [0, -5, float("nan")])
def test_job_sent_back_for_no_time_does_not_come_again_at_once(asked: float):
    sent_back = _of_error(Throttled("x", retry_after=asked), attempts=1)

    assert isinstance(sent_back, Delayed)
    assert sent_back.delay == 0.1


def test_error_text_names_class_message_and_attempt():
    try:
        raise ValueError("why")
    except ValueError as error:
        text = json.loads(outcomes.error_text(error, 3))

    assert (text["class"], text["message"], text["attempt"]) == ("ValueError", "why", 3)
    assert "test_error_text_names_class" in text["traceback"]
    assert json.loads(outcomes.error_text(Refused(), 1))["class"].endswith(".Refused")


def test_error_text_stays_within_eight_kibibytes():
    def deep(n: int) -> None:
        if n:
            deep(n - 1)
        raise ValueError("ü" * 100_000)

    with pytest.raises(ValueError, match="ü") as caught:
        deep(200)
    text = outcomes.error_text(caught.value, 1)

    assert len(text.encode()) <= 8192
    assert json.loads(text)["traceback"].startswith("...")


def test_error_text_takes_any_message():
    assert "?" in json.loads(outcomes.error_text(ValueError("half \ud83d"), 1))["message"]


def test_error_whose_own_text_fails_is_still_an_outcome():
    class Broken(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    outcome = _of_error(Broken(), attempts=2)

    assert isinstance(outcome, Retry)
    assert json.loads(outcome.error)["message"] == "<its text fails with RuntimeError>"


# -- the line of a turn ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outcome", "line"),
    [
        (Completed(), ["completed", 500]),
        (Completed('"r"'), ["completed", 500, '"r"']),
        (Retry("e", 1.5), ["retry", 500, None, {"error": "e", "delay_ms": 1500}]),
        (Retry("e", 0, 2), ["retry", 500, None, {"error": "e", "delay_ms": 0, "fallback": 2}]),
        (Failed("error", "e"), ["failed", 500, None, {"reason": "error", "error": "e"}]),
        (Delayed("sleep", 2), ["delayed", 500, None, {"why": "sleep", "delay_ms": 2000}]),
        (
            Delayed("budget", None, "main/b", 4),
            ["delayed", 500, None, {"why": "budget", "on": "main/b", "generation": 4}],
        ),
        (Suspended(), ["suspended", 500, None, {}]),
        (Suspended(1), ["suspended", 500, None, {"delay_ms": 1000}]),
        (WaitingChildren(), ["waiting_children", 500, None, {}]),
        (Cancelled(), ["cancelled", 500]),
        (Released(), ["released", 500]),
    ],
)
def test_line_of_each_outcome(outcome: outcomes.Outcome, line: list[object]):
    assert _line(outcome) == ["a", "t", *line]


def test_unsent_chunks_travel_with_the_outcome():
    tail = (3, [["content", "x"]])

    assert _line(Completed('"r"'), tail=tail) == ["a", "t", "completed", 500, '"r"', {"tail": tail}]
    assert _line(Cancelled(), tail=tail) == ["a", "t", "cancelled", 500, None, {"tail": tail}]


def test_dropped_run_has_no_line():
    with pytest.raises(ValueError, match="dropped"):
        _line(Dropped())


def test_limiter_that_never_has_room_is_waited_for_a_finite_time():
    line = _line(_of_error(Throttled("x", retry_after=float("inf"))))

    assert line[5] == {"why": "throttled", "delay_ms": 3_600_000}


def test_job_is_not_sent_back_for_years_because_a_provider_says_so():
    error = Throttled("x", retry_after=1e9)

    assert outcomes.of_error(error, attempt=1, options={}, backoffs={}) == Delayed(
        "throttled", 3600
    )
    assert outcomes.of_error(
        error, attempt=1, options={}, backoffs={}, max_retry_after=60
    ) == Delayed("throttled", 60)
