"""Events as no vendor should send them: whatever stands where in an event, a call takes it in and can be booked."""

from __future__ import annotations

import contextlib
import copy
import itertools
import json
import math
from pathlib import Path

import pytest

from glidemq_core._codec import dumps
from glidemq_core._units import MAX_WIRE_INT, to_nano, whole
from glidemq_llm import (
    AnswerUnreadable,
    Pricing,
    classify_error,
    normalize_usage,
    parse_rate_limits,
)
from glidemq_llm._answers import is_empty
from glidemq_llm._sent_back import Memory
from glidemq_llm.metering import MeteredCall, MeterSettings

CASES = json.loads((Path(__file__).parent / "data" / "usage_cases.json").read_text("utf-8"))[
    "cases"
]
ASK = {"model": "m", "messages": [{"role": "user", "content": "say something nice to me"}]}
SETTINGS = MeterSettings(pricing=Pricing(overrides={"*": {"input": 1, "output": 10}}))

TOOL = {"index": 0, "id": "c", "function": {"name": "f", "arguments": "{}"}}
DETAIL = {"type": "reasoning.text", "text": "t", "signature": "s", "index": 0}
CHAT = {
    "content": "a",
    "reasoning_content": "b",
    "refusal": "c",
    "tool_calls": [TOOL],
    "reasoning_details": [DETAIL, DETAIL],
    "executed_tools": [{"index": 0, "type": "search", "output": "o"}],
    "images": [{"image_url": {"url": "data:image/png;base64,AAAA"}}],
}
STREAMS = {
    "openai.chat": [
        {"model": "m", "choices": [{"index": 0, "delta": CHAT}]},
        {"choices": [{"index": 0, "delta": {"content": [{"type": "text", "text": "a"}]}}]},
        {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
        {
            "choices": [],
            "usage": {
                "prompt_tokens": 20,
                "completion_tokens": 9,
                "total_tokens": 29,
                "prompt_tokens_details": {"cached_tokens": 8, "audio_tokens": 2},
                "completion_tokens_details": {"reasoning_tokens": 3},
                "cost": 0.5,
            },
        },
        {"error": {"message": "busy", "code": "overloaded"}},
    ],
    "openai.responses": [
        {"type": "response.output_text.delta", "output_index": 0, "delta": "a"},
        {"type": "response.reasoning_summary_text.delta", "output_index": 0, "delta": "a"},
        {
            "type": "response.output_item.added",
            "output_index": 1,
            "item": {"type": "function_call", "call_id": "c", "name": "f"},
        },
        {"type": "response.function_call_arguments.delta", "output_index": 1, "delta": "{"},
        {"type": "response.function_call_arguments.done", "output_index": 1},
        {
            "type": "response.completed",
            "response": {
                "model": "m",
                "output": [{"type": "web_search_call", "action": {"type": "search"}}],
                "usage": {
                    "input_tokens": 20,
                    "input_tokens_details": {"cached_tokens": 8},
                    "output_tokens": 9,
                    "output_tokens_details": {"reasoning_tokens": 3},
                    "total_tokens": 29,
                },
            },
        },
        {"type": "response.failed", "response": {"error": {"code": "x", "message": "y"}}},
    ],
    "anthropic.messages": [
        {
            "type": "message_start",
            "message": {
                "model": "m",
                "usage": {
                    "input_tokens": 20,
                    "cache_creation_input_tokens": 5,
                    "cache_creation": {"ephemeral_1h_input_tokens": 5},
                    "output_tokens": 1,
                },
            },
        },
        {
            "type": "content_block_start",
            "index": 1,
            "content_block": {"type": "tool_use", "id": "c", "name": "f"},
        },
        {
            "type": "content_block_delta",
            "index": 1,
            "delta": {"type": "input_json_delta", "partial_json": "{"},
        },
        {"type": "content_block_stop", "index": 1},
        {
            "type": "content_block_start",
            "index": 0,
            "content_block": {"type": "thinking", "thinking": "", "signature": ""},
        },
        {
            "type": "content_block_delta",
            "index": 0,
            "delta": {"type": "text_delta", "text": "a"},
        },
        {
            "type": "content_block_delta",
            "index": 0,
            "delta": {"type": "thinking_delta", "thinking": "a"},
        },
        {
            "type": "message_delta",
            "delta": {"stop_reason": "refusal", "stop_details": {"explanation": "no"}},
            "usage": {
                "output_tokens": 9,
                "output_tokens_details": {"thinking_tokens": 3},
                "iterations": [{"type": "message", "model": "n", "output_tokens": 9}],
            },
        },
        {"type": "error", "error": {"type": "overloaded_error", "message": "busy"}},
    ],
    "gemini": [
        {
            "modelVersion": "m",
            "candidates": [
                {
                    "index": 0,
                    "content": {
                        "parts": [
                            {"text": "a", "thought": True},
                            {"functionCall": {"name": "f", "args": {"at": "Oslo"}}},
                            {"inlineData": {"mimeType": "image/png", "data": "AAAA"}},
                        ]
                    },
                    "finishReason": "STOP",
                }
            ],
            "usageMetadata": {
                "promptTokenCount": 20,
                "cachedContentTokenCount": 5,
                "candidatesTokenCount": 9,
                "thoughtsTokenCount": 3,
                "totalTokenCount": 32,
                "promptTokensDetails": [{"modality": "IMAGE", "tokenCount": 3}],
            },
            "promptFeedback": {"blockReason": "SAFETY"},
        },
        {"error": {"code": 503, "message": "busy"}},
    ],
    "cohere": [
        {"type": "content-delta", "index": 0, "delta": {"message": {"content": {"text": "a"}}}},
        {
            "type": "tool-call-start",
            "index": 0,
            "delta": {"message": {"tool_calls": {"id": "c", "function": {"name": "f"}}}},
        },
        {
            "type": "tool-call-delta",
            "index": 0,
            "delta": {"message": {"tool_calls": {"function": {"arguments": "{"}}}},
        },
        {"type": "tool-call-end", "index": 0},
        {
            "type": "message-end",
            "delta": {
                "finish_reason": "COMPLETE",
                "usage": {
                    "tokens": {"input_tokens": 20.0, "output_tokens": 9.0},
                    "billed_units": {"input_tokens": 5.0, "output_tokens": 9.0},
                },
            },
        },
    ],
    "ollama": [
        {
            "model": "m",
            "message": {
                "content": "a",
                "thinking": "b",
                "tool_calls": [{"function": {"name": "f", "arguments": {"at": "Oslo"}}}],
            },
            "done": False,
        },
        {"done": True, "done_reason": "stop", "prompt_eval_count": 20, "eval_count": 9},
        {"error": "busy"},
    ],
    "bedrock": [
        {
            "contentBlockStart": {
                "contentBlockIndex": 1,
                "start": {"toolUse": {"toolUseId": "c", "name": "f"}},
            }
        },
        {"contentBlockDelta": {"contentBlockIndex": 1, "delta": {"toolUse": {"input": "{"}}}},
        {"contentBlockStop": {"contentBlockIndex": 1}},
        {"contentBlockDelta": {"contentBlockIndex": 0, "delta": {"text": "a"}}},
        {
            "contentBlockDelta": {
                "contentBlockIndex": 0,
                "delta": {"reasoningContent": {"text": "a"}},
            }
        },
        {
            "contentBlockStart": {
                "contentBlockIndex": 2,
                "start": {"toolResult": {"toolUseId": "c", "type": "f", "status": "error"}},
            }
        },
        {
            "contentBlockDelta": {
                "contentBlockIndex": 2,
                "delta": {"toolResult": [{"text": "a"}, {"text": "b"}]},
            }
        },
        {"contentBlockStop": {"contentBlockIndex": 2}},
        {"contentBlockStart": {"contentBlockIndex": 3, "start": {"image": {"format": "png"}}}},
        {
            "contentBlockDelta": {
                "contentBlockIndex": 3,
                "delta": {"image": {"source": {"bytes": "a"}}},
            }
        },
        {"contentBlockStop": {"contentBlockIndex": 3}},
        {"messageStop": {"stopReason": "end_turn"}},
        {
            "metadata": {
                "usage": {
                    "inputTokens": 20,
                    "outputTokens": 9,
                    "totalTokens": 34,
                    "cacheWriteInputTokens": 5,
                    "cacheDetails": [{"ttl": "1h", "inputTokens": 5}],
                }
            }
        },
        {"throttlingException": {"message": "busy"}},
    ],
}
ANSWERS = {
    "chat": {
        "model": "m",
        "choices": [
            {"index": 0, "finish_reason": "stop", "message": CHAT},
        ],
        "usage": {"prompt_tokens": 20, "completion_tokens": 9, "total_tokens": 29},
    },
    "anthropic": {
        "stop_reason": "tool_use",
        "content": [
            {"type": "thinking", "thinking": "a"},
            {"type": "text", "text": "a"},
            {"type": "tool_use", "id": "c", "name": "f", "input": {"at": "Oslo"}},
        ],
        "usage": {"input_tokens": 20, "output_tokens": 9},
    },
    "responses": {
        "status": "incomplete",
        "incomplete_details": {"reason": "max_output_tokens"},
        "output": [
            {"type": "reasoning", "summary": [{"type": "summary_text", "text": "a"}]},
            {"type": "message", "content": [{"type": "output_text", "text": "a"}]},
            {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
        ],
        "usage": {"input_tokens": 20, "output_tokens": 9, "total_tokens": 29},
    },
    "gemini": STREAMS["gemini"][0],
    "cohere": {
        "finish_reason": "TOOL_CALL",
        "message": {
            "content": [{"type": "thinking", "thinking": "a"}, {"type": "text", "text": "a"}],
            "tool_calls": [TOOL],
        },
        "usage": {"tokens": {"input_tokens": 20, "output_tokens": 9}},
    },
    "ollama": {
        "done": True,
        "done_reason": "stop",
        "message": {"content": "a", "tool_calls": [TOOL]},
        "prompt_eval_count": 20,
        "eval_count": 9,
    },
    "bedrock": {
        "stopReason": "tool_use",
        "output": {
            "message": {
                "content": [
                    {"reasoningContent": {"reasoningText": {"text": "a"}}},
                    {"text": "a"},
                    {"toolUse": {"toolUseId": "c", "name": "f", "input": {"at": "Oslo"}}},
                ]
            }
        },
        "usage": {"inputTokens": 20, "outputTokens": 9, "totalTokens": 29},
    },
}
NUMBERS = [None, True, 0, -1, MAX_WIRE_INT, 10**30, -(10**30), 0.5, math.nan, math.inf, 1e300]
ODD = [
    *NUMBERS,
    10**9,
    "",
    "-7",
    "NaN",
    "\ud83d",
    "a\r\nevent: end\ndata: x\n\n\x00",
    "x" * 5000,
    [],
    [None],
    [[]],
    ["a"],
    [-1],
    {},
    {"": None},
    {"text": -1},
    {"a": {"b": [1]}},
    {f"k{number}\r\n_requests": number for number in range(300)},
]


def places(value, path=()):
    """The paths of everything in a value, itself included."""
    yield path
    inner = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for key, item in inner:
        yield from places(item, (*path, key))


def put(event, path, odd):
    """The event with something else at a place."""
    if not path:
        return odd
    event = copy.deepcopy(event)
    holder = event
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = odd
    return event


def take_in(api, events):
    """Feed a call with events."""
    call, memory = sent_call(api), Memory()
    note = memory.begin(api, "p", "m")
    pieces = [piece for event in events for piece in call.feed(event) if note(event)]
    check(call, pieces, call.settle(call.fault()))
    dumps(memory.kept(), "step")


def take_whole(answer):
    """Give a call a whole answer."""
    call = sent_call("openai.chat")
    if isinstance(answer, str) or is_empty(answer):
        with pytest.raises(AnswerUnreadable):
            call.take(answer)
        return
    pieces = call.take(answer)
    check(call, pieces, call.settle(None, whole=True))


def sent_call(api):
    call = MeteredCall("j/1/1", api=api, provider="p", request=ASK, settings=SETTINGS)
    call.is_sent = True
    return call


def check(call, pieces, settled):
    """Everything that a call says has to be fit to be written and booked."""
    for piece in [*pieces, *settled.pieces]:
        assert isinstance(piece.content, str)
        assert all(isinstance(value, str) for value in piece.fields.values())
        dumps(piece.fields, "fields")
    assert settled.report is not None
    for name, count in settled.report["tokens"].items():
        whole(count, name)
    whole(sum(settled.report["tokens"].values()), "total")
    for name, amount in (settled.report["costs"] or {}).items():
        to_nano(amount, name)
    dumps(settled.report, "usage", limit=65_536)
    dumps([call.text, call.tool_calls, call.lacks_usage], "result")


@pytest.mark.parametrize("api", STREAMS)
def test_anything_anywhere_in_an_event_can_be_taken_in_and_booked(api):
    stream = STREAMS[api]
    for number, event in enumerate(stream):
        for path, odd in itertools.product(places(event), ODD):
            with told(path, odd, event):
                take_in(api, [*stream[:number], put(event, path, odd), *stream[number + 1 :]])


@pytest.mark.parametrize("vendor", ANSWERS)
def test_anything_anywhere_in_an_answer_can_be_taken_in_and_booked(vendor):
    answer = ANSWERS[vendor]
    for path, odd in itertools.product(places(answer), ODD):
        with told(path, odd, answer):
            take_whole(put(answer, path, odd))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_anything_anywhere_in_recorded_usage_can_be_booked(case):
    for path, odd in itertools.product(places(case["raw"]), NUMBERS):
        with told(path, odd, case["id"]):
            usage = normalize_usage(put(case["raw"], path, odd))
            assert all(whole(count, name) > 0 for name, count in usage.tokens.items())
            dumps([dict(usage.tokens), dict(usage.counts), usage.model], "usage", limit=65_536)


ERRORS = [
    {"error": {"message": "m", "type": "t", "code": "c", "metadata": {"raw": "r", "headers": {}}}},
    {"type": "error", "error": {"type": "t", "details": {"error_code": "c"}}},
    {"error": {"code": 429, "status": "s", "details": [{"retryDelay": "14s", "violations": [{}]}]}},
    {"Error": {"Code": "c", "Message": "m"}, "ResponseMetadata": {"HTTPStatusCode": 400}},
]


@pytest.mark.parametrize("body", ERRORS, ids=("openai", "anthropic", "google", "boto3"))
def test_anything_anywhere_in_an_error_can_be_classified(body):
    for path, odd in itertools.product(places(body), ODD):
        error = Exception("no")
        error.body = error.response = put(body, path, odd)
        with told(path, odd, body):
            info = classify_error(error)
            assert info.retry_after is None or 0 <= info.retry_after < math.inf
            assert info.status is None or 200 <= info.status <= 599


@pytest.mark.parametrize("value", [*map(str, ODD), "1e400", "9" * 400, "١٢"])
def test_any_header_can_be_read(value):
    for name in ("retry-after", "retry-after-ms", *HEADERS):
        limits = parse_rate_limits({name: value})
        waits = [limits.retry_after, *(axis.reset_seconds for axis in limits.axes.values())]
        assert all(wait is None or 0 <= wait < math.inf for wait in waits)


HEADERS = (
    "x-ratelimit-limit-tokens",
    "x-ratelimit-remaining-tokens",
    "x-ratelimit-reset-tokens",
    "x-ratelimit-limit-tokens-month",
    "anthropic-ratelimit-tokens-reset",
    "anthropic-ratelimit-unified-5h-utilization",
    "ratelimit",
    "date",
)


@contextlib.contextmanager
def told(path, odd, where):
    """Have an error say what was put where."""
    try:
        yield
    except Exception as error:
        error.add_note(f"{odd!r} at {path} of {where}")
        raise
