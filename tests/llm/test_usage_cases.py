"""The recorded usage of every vendor, whole and cut at every event."""

import json
from decimal import Decimal
from pathlib import Path

import pytest

from glidemq_llm import UsageAccumulator, normalize_usage

CASES = json.loads((Path(__file__).parent / "data" / "usage_cases.json").read_text("utf-8"))[
    "cases"
]
STREAMS = [case for case in CASES if case["streaming"]]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_case_is_divided_as_the_vendor_counts(case):
    expected = case["expected"]

    usage = normalize_usage(case["raw"])

    assert dict(usage.tokens) == expected["tokens"]
    assert usage.total_tokens == expected["total_tokens"]
    assert usage.status == expected["status"]
    assert dict(usage.counts) == expected.get("counts", {})
    assert usage.billed == expected.get("billed")
    cost = expected.get("provider_cost_usd")
    assert usage.provider_cost == (None if cost is None else Decimal(str(cost)))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_naming_the_vendor_changes_nothing_that_the_fields_settle(case):
    assert dict(normalize_usage(case["raw"], case["vendor"]).tokens) == case["expected"]["tokens"]


@pytest.mark.parametrize("case", STREAMS, ids=lambda case: case["id"])
def test_stream_cut_at_any_event_never_counts_more_than_the_whole(case):
    totals = []

    for end in range(len(case["raw"]) + 1):
        usage = normalize_usage(case["raw"][:end])
        assert usage.status in ("complete", "partial", "missing")
        assert (usage.status == "missing") == (not usage.tokens and not usage.counts)
        if usage.status == "complete":
            assert (
                dict(usage.tokens) == case["expected"]["tokens"] or case["id"] == "vllm-continuous"
            )
        totals.append(usage.total_tokens)

    assert totals == sorted(totals)
    assert totals[-1] == case["expected"]["total_tokens"]


@pytest.mark.parametrize("case", STREAMS, ids=lambda case: case["id"])
def test_asking_in_between_does_not_change_the_result(case):
    accumulator = UsageAccumulator()

    for event in case["raw"]:
        accumulator.feed(event)
        accumulator.result()

    assert dict(accumulator.result().tokens) == case["expected"]["tokens"]


@pytest.mark.parametrize("case", STREAMS, ids=lambda case: case["id"])
def test_repeated_events_count_once(case):
    doubled = [event for event in case["raw"] for _ in range(2)]

    assert dict(normalize_usage(doubled).tokens) == case["expected"]["tokens"]
