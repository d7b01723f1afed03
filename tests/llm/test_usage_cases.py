"""The recorded usage of every vendor, whole and cut at every event: as it is read, and as a call books it."""

import json
from decimal import Decimal
from pathlib import Path

import pytest

from glidemq_llm import UsageAccumulator, normalize_usage
from glidemq_llm.metering import MeteredCall, MeterSettings

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


# -- as a metered call books it ------------------------------------------------

ASK = {"messages": [{"role": "user", "content": "tell me of the sea and of those who live by it"}]}
APIS = {
    "choices": "openai.chat",
    "candidates": "gemini",
    "usageMetadata": "gemini",
    "done": "ollama",
    "messageStop": "bedrock",
    "metadata": "bedrock",
}


def api_of(case):
    """Whose stream it is, by its events."""
    kind = str(case["raw"][0].get("type"))
    if kind != "None":
        prefixes = {"response.": "openai.responses", "message_": "anthropic.messages"}
        return next((api for prefix, api in prefixes.items() if kind.startswith(prefix)), "cohere")
    return next(api for key, api in APIS.items() if any(key in event for event in case["raw"]))


def metered(case, end):
    call = MeteredCall(
        "j/1/1", api=api_of(case), provider=case["vendor"], request=ASK, settings=MeterSettings()
    )
    call.is_sent = True
    pieces = [piece for event in case["raw"][:end] for piece in call.feed(event)]
    return call, pieces, call.settle(call.fault())


@pytest.mark.parametrize("case", STREAMS, ids=lambda case: case["id"])
def test_metered_stream_cut_at_any_event_is_flagged_and_never_booked_twice(case):
    expected = case["expected"]
    asked = metered(case, 0)[0].estimate().input

    for end in range(len(case["raw"]) + 1):
        _, pieces, settled = metered(case, end)
        stated = normalize_usage(case["raw"][:end], case["vendor"])
        # A token has a character at least, and no vendor's factor is 2.
        heard = 2 * sum(len(piece.content) for piece in pieces)
        booked = settled.usage

        assert settled.report["tokens"] == dict(booked.tokens)
        assert settled.report["status"] == booked.status == stated.status
        if booked.status == "complete":
            assert dict(booked.tokens) == dict(stated.tokens)
        else:
            assert booked.source != "provider"
            assert booked.input_tokens == (stated.input_tokens or asked)
            assert stated.output_tokens <= booked.output_tokens
            assert booked.output_tokens <= max(stated.output_tokens, heard)
            assert booked.output_tokens <= max(sum(expected["tokens"].values()), heard)


@pytest.mark.parametrize("case", STREAMS, ids=lambda case: case["id"])
def test_whole_stream_is_booked_as_the_vendor_counts(case):
    _, _, settled = metered(case, len(case["raw"]))

    if case["expected"]["status"] == "complete":
        assert settled.report["tokens"] == case["expected"]["tokens"]
        assert settled.report["details"]["source"] == "provider"
    else:
        assert settled.report["status"] == case["expected"]["status"]


WHOLE = [
    case for case in CASES if not case["streaming"] and case["expected"]["status"] == "complete"
]


@pytest.mark.parametrize("case", WHOLE, ids=lambda case: case["id"])
def test_whole_answer_is_booked_as_the_vendor_counts(case):
    call = MeteredCall(
        "j/1/1", api="openai.chat", provider=case["vendor"], request=ASK, settings=MeterSettings()
    )
    call.is_sent = True
    call.take(case["raw"])

    report = call.settle(None, whole=True).report

    assert report["tokens"] == case["expected"]["tokens"]
    assert report["status"] == case["expected"]["status"]
    assert report["details"].get("counts", {}) == case["expected"].get("counts", {})
