"""Shapes, merging, completeness and estimates of usage; the recorded cases are in test_usage_cases."""

import json
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types import CompletionUsage
from openai.types.chat import ChatCompletionChunk

from glidemq_llm import Usage, UsageAccumulator, normalize_usage
from glidemq_llm.categories import canonical, is_input, price_fallback

CASES = json.loads((Path(__file__).parent / "data" / "usage_cases.json").read_text("utf-8"))[
    "cases"
]


def case_named(case_id: str) -> dict:
    return next(case for case in CASES if case["id"] == case_id)


def test_running_total_of_an_unfinished_answer_is_partial():
    events = case_named("vllm-continuous")["raw"]

    assert [normalize_usage(events[:end]).status for end in range(1, 5)] == [
        "partial",
        "partial",
        "complete",
        "complete",
    ]


def test_unfinished_gemini_stream_keeps_its_running_totals_as_partial():
    usage = normalize_usage(case_named("gemini-stream-cumulative")["raw"][:2])

    assert usage.status == "partial"
    assert dict(usage.tokens) == {"input": 18, "output": 79, "reasoning": 35}


def test_anthropic_delta_that_leaves_the_message_open_is_partial():
    events = [
        {"type": "message_start", "message": {"usage": {"input_tokens": 2068, "output_tokens": 3}}},
        {
            "type": "message_delta",
            "delta": {"stop_reason": None},
            "usage": {"input_tokens": 22397, "output_tokens": 90},
        },
    ]

    usage = normalize_usage(events)

    assert usage.status == "partial"
    assert dict(usage.tokens) == {"input": 22397, "output": 90}


def test_cache_lifetimes_survive_a_delta_that_does_not_repeat_them():
    events = [
        {
            "type": "message_start",
            "message": {
                "model": "claude-sonnet-4-5",
                "usage": {
                    "input_tokens": 3,
                    "cache_creation_input_tokens": 100,
                    "cache_creation": {
                        "ephemeral_5m_input_tokens": 40,
                        "ephemeral_1h_input_tokens": 60,
                    },
                    "output_tokens": 1,
                },
            },
        },
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn"},
            "usage": {
                "output_tokens": 9,
                "cache_creation": None,
                "cache_creation_input_tokens": 100,
            },
        },
    ]

    assert dict(normalize_usage(events).tokens) == {
        "input": 3,
        "cache_write": 40,
        "cache_write_1h": 60,
        "output": 9,
    }


def test_iterations_give_one_part_per_model():
    usage = normalize_usage(case_named("anthropic-advisor-iterations")["raw"])

    assert usage.parts == [
        ("claude-sonnet-4-6", {"input": 2390, "output": 93, "reasoning": 28}),
        ("claude-opus-4-8", {"input": 2518, "output": 22}),
    ]
    assert sum(sum(tokens.values()) for _, tokens in usage.parts) == usage.total_tokens


def test_compound_system_is_split_by_its_models():
    body = {
        "model": "compound",
        "usage": {"prompt_tokens": 30, "completion_tokens": 12, "total_tokens": 42},
        "usage_breakdown": {
            "models": [
                {
                    "model": "a",
                    "usage": {"prompt_tokens": 20, "completion_tokens": 10, "total_tokens": 30},
                },
                {
                    "model": "b",
                    "usage": {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12},
                },
            ]
        },
    }

    assert normalize_usage(body).parts == [
        ("a", {"input": 20, "output": 10}),
        ("b", {"input": 10, "output": 2}),
    ]


def test_overlapping_audio_yields_to_cached_tokens():
    body = {
        "usage": {
            "prompt_tokens": 100,
            "completion_tokens": 5,
            "total_tokens": 105,
            "prompt_tokens_details": {"cached_tokens": 80, "audio_tokens": 60},
        }
    }

    assert dict(normalize_usage(body).tokens) == {
        "cached_input": 80,
        "audio_input": 20,
        "output": 5,
    }


def test_realtime_cached_media_are_told_apart():
    body = {
        "type": "response.done",
        "response": {
            "usage": {
                "input_tokens": 200,
                "output_tokens": 50,
                "total_tokens": 250,
                "input_token_details": {
                    "text_tokens": 120,
                    "audio_tokens": 80,
                    "cached_tokens": 90,
                    "cached_tokens_details": {"text_tokens": 60, "audio_tokens": 30},
                },
                "output_token_details": {"text_tokens": 10, "audio_tokens": 40},
            }
        },
    }

    assert dict(normalize_usage(body).tokens) == {
        "cached_audio_input": 30,
        "cached_input": 60,
        "audio_input": 50,
        "input": 60,
        "audio_output": 40,
        "output": 10,
    }


@pytest.mark.parametrize(
    ("raw", "tokens", "counts"),
    [
        (
            {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10},
            {"input": 7, "output": 3},
            {},
        ),
        ({"usage": {"total_tokens": 12}}, {"input": 12}, {}),
        (
            {"choices": [], "timings": {"cache_n": 3, "prompt_n": 10, "predicted_n": 5}},
            {"cached_input": 3, "input": 10, "output": 5},
            {},
        ),
        ({"done": True, "eval_count": 4}, {"output": 4}, {}),
        ({"meta": {"billed_units": {"search_units": 2}}}, {}, {"search_units": 2}),
        ({"usage_info": {"pages_processed": 3, "doc_size_bytes": 900}}, {}, {"pages": 3}),
        (
            {
                "usageMetadata": {
                    "promptTokenCount": 4,
                    "responseTokenCount": 6,
                    "totalTokenCount": 10,
                }
            },
            {"input": 4, "output": 6},
            {},
        ),
        (
            {"usage": {"prompt_tokens": 50.0, "completion_tokens": 8.0, "total_tokens": True}},
            {"input": 50, "output": 8},
            {},
        ),
        ({"usage": {"prompt_tokens": -1, "completion_tokens": 8}}, {"output": 8}, {}),
        (
            {
                "usage": {
                    "prompt_tokens": 90,
                    "completion_tokens": 9,
                    "prompt_tokens_details": {
                        "multimodal_tokens": {"image": 60},
                        "created_cache_tokens": 16,
                    },
                }
            },
            {"cache_write": 16, "image_input": 60, "input": 14, "output": 9},
            {},
        ),
        (
            {
                "usage": {
                    "input_tokens": 90,
                    "output_tokens": 10,
                    "total_tokens": 100,
                    "input_tokens_details": {
                        "cache_write_tokens": 50,
                        "cache_write_tokens_details": {"ttl_30m_tokens": 20, "ttl_12h_tokens": 30},
                    },
                }
            },
            {"cache_write_12h": 30, "cache_write": 20, "input": 40, "output": 10},
            {},
        ),
        (
            {
                "usage": {
                    "inputTokens": 5,
                    "outputTokens": 6,
                    "cacheWriteInputTokens": 30,
                    "cacheDetails": [
                        {"ttl": "1h", "inputTokens": 10},
                        {"ttl": "5m", "inputTokens": 20},
                    ],
                }
            },
            {"input": 5, "cache_write_1h": 10, "cache_write": 20, "output": 6},
            {},
        ),
        ({"usage": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}}, {}, {}),
    ],
)
def test_other_shapes_are_complete(raw, tokens, counts):
    usage = normalize_usage(raw)

    assert (dict(usage.tokens), dict(usage.counts), usage.status) == (tokens, counts, "complete")


@pytest.mark.parametrize(
    "raw", [None, {}, [], "text", 7, {"usage": None}, {"usage": {}}, {"usage": {"carbon": 3}}]
)
def test_nothing_stated_is_missing_and_not_zero(raw):
    assert normalize_usage(raw).status == "missing"


def test_sdk_objects_read_like_their_json():
    body = case_named("openai-chat-read-write-reasoning")["raw"]
    response = SimpleNamespace(
        model=body["model"],
        service_tier="priority",
        usage=CompletionUsage.model_validate(body["usage"]),
    )

    usage = normalize_usage(response)

    assert dict(usage.tokens) == {
        "input": 1000,
        "cached_input": 6000,
        "cache_write": 3000,
        "output": 388,
        "reasoning": 512,
    }
    assert (usage.model, usage.service_tier) == ("gpt-5.6-sol", "priority")


def test_chunks_of_an_sdk_accumulate():
    case = case_named("groq-stream-double")
    accumulator = UsageAccumulator(provider="groq")

    for event in case["raw"]:
        accumulator.feed(ChatCompletionChunk.model_construct(**event))

    assert dict(accumulator.result().tokens) == case["expected"]["tokens"]


def test_snake_case_of_googles_sdk_reads_like_the_wire():
    metadata = {
        "prompt_token_count": 345,
        "cached_content_token_count": 230,
        "candidates_token_count": 37,
        "total_token_count": 382,
        "prompt_tokens_details": [SimpleNamespace(modality="DOCUMENT", token_count=258)],
        "cache_tokens_details": [SimpleNamespace(modality="DOCUMENT", token_count=172)],
    }

    usage = normalize_usage(SimpleNamespace(usage_metadata=SimpleNamespace(**metadata)))

    assert dict(usage.tokens) == case_named("gemini-document-cache")["expected"]["tokens"]


def test_envelope_of_a_client_is_opened():
    case = case_named("together-stream")

    usage = normalize_usage([SimpleNamespace(data=event) for event in case["raw"]])

    assert dict(usage.tokens) == case["expected"]["tokens"]
    assert usage.status == "complete"


def test_running_cost_is_not_taken_for_the_bill():
    chunk = {
        "choices": [{"delta": {"content": "a"}, "finish_reason": None}],
        "usage": {"prompt_tokens": 5, "completion_tokens": 1, "cost": {"total_cost": 0}},
    }
    end = {
        "choices": [{"delta": {}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 5, "completion_tokens": 2, "cost": {"total_cost": 0.25}},
    }

    assert normalize_usage([chunk]).provider_cost is None
    assert normalize_usage([chunk, end]).provider_cost == Decimal("0.25")


def test_searches_of_a_cut_responses_stream_are_counted():
    search = {"type": "web_search_call", "action": {"type": "search"}}
    events = [
        {"type": "response.created", "response": {"model": "gpt-5", "usage": None}},
        {"type": "response.output_item.done", "item": search},
        {"type": "response.output_item.done", "item": search},
    ]

    usage = normalize_usage(events)

    assert dict(usage.counts) == {"web_search_requests": 2}
    assert (usage.total_tokens, usage.status) == (0, "partial")


def test_estimate_fills_a_missing_usage():
    usage = Usage(status="missing").with_estimate(input=100, output=20, reasoning=5)

    assert dict(usage.tokens) == {"input": 100, "output": 20, "reasoning": 5}
    assert (usage.status, usage.source) == ("missing", "estimated")


def test_estimate_keeps_what_the_vendor_stated():
    partial = normalize_usage(case_named("anthropic-stream-truncated")["raw"])

    usage = partial.with_estimate(input=9999, output=7)

    assert dict(usage.tokens) == {"input": 1200, "output": 7}
    assert usage.source == "mixed"


def test_estimate_leaves_a_higher_running_total_alone():
    usage = Usage(tokens={"input": 10, "output": 50}, status="partial").with_estimate(
        input=10, output=30
    )

    assert dict(usage.tokens) == {"input": 10, "output": 50}


def test_inclusive_views_add_up():
    usage = normalize_usage(case_named("anthropic-cache-1h")["raw"])

    assert usage.input_tokens == 12307
    assert usage.output_tokens == 550


def test_usage_as_json_has_no_raw_details():
    usage = normalize_usage(case_named("openrouter-byok")["raw"], provider="openrouter")

    written = json.loads(json.dumps(usage.as_dict()))

    assert written["provider_cost"] == "0.0003253"
    assert written["total_tokens"] == 417
    assert "details" not in written
    assert usage.details["is_byok"] is True


def test_oversized_details_are_cut_to_their_numbers():
    huge = {"prompt_tokens": 5, "completion_tokens": 1, "note": "x" * 20_000}

    usage = normalize_usage({"usage": huge})

    assert usage.details == {"prompt_tokens": 5, "completion_tokens": 1}


_COUNT = st.one_of(st.none(), st.integers(min_value=-5, max_value=10_000), st.booleans())
_DETAILS = st.one_of(
    st.none(),
    st.dictionaries(
        st.sampled_from(
            [
                "cached_tokens",
                "cache_write_tokens",
                "audio_tokens",
                "image_tokens",
                "video_tokens",
                "reasoning_tokens",
                "odd_tokens",
            ]
        ),
        _COUNT,
    ),
)


@given(
    st.fixed_dictionaries(
        {"prompt_tokens": st.integers(0, 10_000)},
        optional={
            "completion_tokens": _COUNT,
            "total_tokens": _COUNT,
            "prompt_tokens_details": _DETAILS,
            "completion_tokens_details": _DETAILS,
            "cached_tokens": _COUNT,
            "reasoning_tokens": _COUNT,
            "cache_creation_input_tokens": _COUNT,
        },
    )
)
def test_inconsistent_details_never_move_the_prompt(raw):
    usage = normalize_usage({"usage": raw})

    assert usage.input_tokens == raw["prompt_tokens"]
    assert all(count > 0 for count in usage.tokens.values())


@given(
    st.dictionaries(
        st.sampled_from(
            [
                "promptTokenCount",
                "cachedContentTokenCount",
                "candidatesTokenCount",
                "thoughtsTokenCount",
                "toolUsePromptTokenCount",
                "totalTokenCount",
            ]
        ),
        st.integers(0, 1000),
    ),
    st.lists(
        st.fixed_dictionaries(
            {"modality": st.sampled_from(["TEXT", "AUDIO"]), "tokenCount": _COUNT}
        )
    ),
)
def test_gemini_lists_that_do_not_add_up_never_move_a_side(counts, media):
    raw = {**counts, "promptTokensDetails": media, "cacheTokensDetails": media}

    usage = normalize_usage({"usageMetadata": raw})

    if "promptTokenCount" in counts:
        prompt = counts["promptTokenCount"] + counts.get("toolUsePromptTokenCount", 0)
        assert usage.input_tokens == prompt


@pytest.mark.parametrize(
    ("category", "fallback", "prompt_side"),
    [
        ("cached_input", "input", True),
        ("cache_write", "input", True),
        ("cache_write_12h", "cache_write", True),
        ("cached_audio_input", "cached_input", True),
        ("hologram_input", "input", True),
        ("hologram_output", "output", False),
        ("reasoning", "output", False),
        ("other", "output", False),
        ("input", None, True),
        ("output", None, False),
    ],
)
def test_grammar_of_categories(category, fallback, prompt_side):
    assert (price_fallback(category), is_input(category)) == (fallback, prompt_side)


def test_camel_case_categories_have_a_canonical_name():
    assert [canonical(name) for name in ("cachedInput", "cacheWrite", "reasoning")] == [
        "cached_input",
        "cache_write",
        "reasoning",
    ]
