"""The names that users build on: each is there, with the arguments it is promised to take."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

import pytest

import glidemq_core
import glidemq_llm
from glidemq_core import Budget, Chunk, FlowJob, FlowProducer, Job, JobHandle, NewJob, Queue, Worker
from glidemq_core.context import RunningJob
from glidemq_llm import Pricing, UsageAccumulator

# A name, and the arguments that it takes by name or, before the *, by place.
CALLS: dict[type | Any, dict[str, str]] = {
    Queue: {
        "__init__": "name * connection",
        "add": "name data * job_id delay priority lifo attempts backoff timeout idle_timeout lock_duration ttl budgets"
        " budget limits estimate ledger fallbacks parent stop_when_no_readers remove_on_complete remove_on_fail",
        "add_many": "jobs",
        "get": "id",
        "jobs": "state * start limit",
        "counts": "",
        "pause": "",
        "resume": "",
        "is_paused": "",
        "cancel": "id",
        "remove": "id",
        "retry": "id * fresh",
        "promote": "id",
        "signal": "id name data",
        "suspended": "",
        "read_stream": "id * after limit block",
        "stream": "id * after",
        "result": "id * timeout",
        "usage_summary": "* window start end queues models",
        "flow_usage": "id",
        "budget": "id",
        "get_flow_budget": "id",
        "update_flow_budget": "id budget",
        "set_limits": "limits",
        "close": "",
        "__aenter__": "",
    },
    JobHandle: {
        "stream": "after",
        "result": "timeout",
        "snapshot": "",
        "cancel": "",
        "signal": "name data",
    },
    Worker: {
        "__init__": "queue handler * connection concurrency lock_duration limits dead_letter",
        "run": "",
        "stop": "",
        "__aenter__": "",
    },
    RunningJob: {
        "stream_chunk": "type content",
        "report_usage": "* model tokens costs",
        "report_tokens": "tokens",
        "progress": "value",
        "log": "text",
        "update_data": "data",
        "step": "name function",
        "sleep": "duration",
        "suspend": "* reason timeout",
        "wait_for_signal": "name * timeout",
        "add_child": "name data",
        "wait_for_children": "",
        "move_to_delayed": "delay * next_step",
        "llm_call": "model",
    },
    FlowProducer: {
        "__init__": "connection",
        "add": "flow * budget",
        "add_many": "flows * budget",
        "add_dag": "jobs edges * budget",
    },
    glidemq_llm: {
        "wrap": "client * job",
        "chat_handler": "clients *",
        "normalize_usage": "raw provider",
        "estimate_tokens": "request",
        "classify_error": "exc",
        "parse_rate_limits": "headers provider",
    },
    UsageAccumulator: {"feed": "event", "result": ""},
    Pricing: {"cost": "usage"},
}

FIELDS: dict[type, str] = {
    Chunk: "id type content epoch seq fields",
    Job: "id name data state attempt max_attempts progress result error usage hops created_at started_at finished_at",
    NewJob: "name data job_id delay priority attempts budgets budget limits estimate fallbacks",
    FlowJob: "name queue data options children on_child_failure",
    Budget: "max_total_tokens max_tokens token_weights max_total_cost max_costs cost_unit on_exceeded window",
    glidemq_core.Throttle: "rpm tpm concurrency",
    glidemq_llm.Usage: "tokens total_tokens counts billed provider_cost status source parts model provider",
}

PROPERTIES: dict[type, str] = {
    RunningJob: "id name data attempt run signals current_fallback fallback_index budget cancelled",
    JobHandle: "id",
}

ERRORS = (
    "JobFailed JobCancelled LeaseLost BudgetExceeded Throttled SignalTimeout InvalidOption PayloadTooLarge StreamGap"
    " UnrecoverableError ConnectionLost"
)


@pytest.mark.parametrize(
    ("owner", "name"), [(owner, name) for owner, names in CALLS.items() for name in names]
)
def test_call_takes_what_is_promised(owner: Any, name: str):
    wanted, _, keywords = CALLS[owner][name].partition("*")
    parameters = inspect.signature(getattr(owner, name)).parameters

    by_place = [
        parameter.name
        for parameter in parameters.values()
        if parameter.kind is parameter.POSITIONAL_OR_KEYWORD and parameter.name != "self"
    ]
    assert by_place[: len(wanted.split())] == wanted.split()
    by_name = {
        parameter.name
        for parameter in parameters.values()
        if parameter.kind is parameter.KEYWORD_ONLY
    }
    assert set(keywords.split()) <= by_name


@pytest.mark.parametrize("owner", FIELDS)
def test_value_has_its_fields(owner: type):
    there = (
        {one.name for one in dataclasses.fields(owner)}
        if dataclasses.is_dataclass(owner)
        else set(dir(owner))
    )

    assert [name for name in FIELDS[owner].split() if name not in there | set(dir(owner))] == []


@pytest.mark.parametrize("owner", PROPERTIES)
def test_object_has_its_properties(owner: type):
    known = set(dir(owner))
    for base in owner.__mro__:
        known |= set(getattr(base, "__slots__", ()))

    assert [name for name in PROPERTIES[owner].split() if name not in known] == []


@pytest.mark.parametrize("name", ERRORS.split())
def test_error_is_one_of_ours(name: str):
    assert issubclass(getattr(glidemq_core, name), glidemq_core.GlideMQError)


def test_all_that_is_exported_is_there():
    assert [name for name in glidemq_core.__all__ if not hasattr(glidemq_core, name)] == []
