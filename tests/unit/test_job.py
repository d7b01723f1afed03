from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal

from glidemq_core.job import STATES, JobError, error_of, job_of
from glidemq_core.usage import summary_of


def test_snapshot_of_a_fresh_job_has_the_defaults():
    job = job_of(
        "a",
        {
            "name": "n",
            "state": "waiting",
            "place": str(1000 * 2**41 + 2**40 + 5),
            "created_at": "1000",
        },
        {},
        [],
        "5",
    )

    assert (job.id, job.name, job.state, job.data, job.attempt, job.max_attempts, job.run) == (
        "a",
        "n",
        "waiting",
        None,
        1,
        1,
        0,
    )
    assert job.priority == 1000
    assert job.created_at == datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)
    assert (job.started_at, job.finished_at, job.due_at, job.error, job.errors) == (
        None,
        None,
        None,
        None,
        (),
    )
    assert job.usage.total_cost is None


def test_snapshot_of_an_ended_job():
    error = json.dumps({"class": "ValueError", "message": "no", "traceback": "t", "attempt": 2})
    fields = {
        "name": "n", "state": "failed", "place": "0", "data": '{"x":1}', "options": '{"attempts":3}', "attempt": "2",
        "run": "4", "stalled": "1", "progress": "0.5", "reason": "error", "error": error, "owner": "w", "why": "retry",
        "cancel_requested": "1", "finished_at": "2000", "result": "null",
    }  # fmt: skip

    job = job_of("a", fields, {}, [error, error], "2000")

    assert (job.data, job.max_attempts, job.attempt, job.run, job.stalled) == ({"x": 1}, 3, 2, 4, 1)
    assert (job.reason, job.progress, job.worker, job.cancel_requested) == ("error", 0.5, "w", True)
    assert job.error == JobError(error_class="ValueError", message="no", traceback="t", attempt=2)
    assert len(job.errors) == 2
    assert job.due_at is None


def test_delayed_job_says_why_and_until_when():
    job = job_of(
        "a", {"name": "n", "state": "delayed", "why": "retry", "reason": "x"}, {}, [], "3000"
    )
    parked = job_of("a", {"name": "n", "state": "delayed", "why": "budget"}, {}, [], "inf")

    assert (job.reason, job.due_at) == ("retry", datetime(1970, 1, 1, 0, 0, 3, tzinfo=UTC))
    assert (parked.reason, parked.due_at) == ("budget", None)


def test_usage_adds_up_what_its_children_have_used():
    call = json.dumps({"call": "1", "tokens": {"input": 3}, "costs": {}})
    usage = {
        "tokens:input": "3",
        "costs:total": "1500000000",
        "calls": "1",
        "call:1": call,
        "flow_tokens:input": "10",
        "flow_of": "x",
    }

    job = job_of("a", {"name": "n", "state": "completed"}, usage, [], "")

    assert (job.usage.tokens, job.usage.total_cost, job.usage.unpriced) == (
        {"input": 3},
        Decimal("1.5"),
        1,
    )
    assert (job.flow_usage.total_tokens, job.flow_usage.total_cost) == (13, Decimal("1.5"))


def test_missing_error_is_an_empty_one():
    assert error_of("") == JobError()
    assert error_of("{}") == JobError()


def test_states_are_the_fields_words():
    assert len(set(STATES)) == 8


def test_summary_adds_minutes_up_per_model():
    rows = [
        [1, [b"calls:m\n", b"1", b"tokens:m\ninput", b"3", b"costs:m\ntotal", b"500000000"]],
        [
            2,
            [
                b"calls:m\n",
                b"2",
                b"tokens:m\ninput",
                b"4",
                b"calls:k:8\n",
                b"1",
                b"tokens:k:8\noutput",
                b"5",
            ],
        ],
    ]

    summary = summary_of({"q": rows})

    assert (summary.calls, summary.total_tokens, summary.tokens) == (
        4,
        12,
        {"input": 7, "output": 5},
    )
    assert summary.costs == {"total": Decimal("0.5")}
    assert summary.models["k:8"].tokens == {"output": 5}
