"""What a call decides by itself: its chunks, its report, and what it makes of every ending. No server, no SDK."""

from __future__ import annotations

import asyncio
import json
from decimal import Decimal

import httpx
import pytest

from glidemq_llm import (
    AnswerUnreadable,
    Corrections,
    MeterSettings,
    Pricing,
    StreamFailed,
    StreamInterrupted,
    UnpricedModel,
    classify_error,
)
from glidemq_llm._answers import read_answer
from glidemq_llm.metering import MeteredCall

PRICING = Pricing(overrides={"*": {"input": 1, "output": 10}})
ASK = {"model": "m", "messages": [{"role": "user", "content": "say something nice to me"}]}


def new_call(api="openai.chat", *, request=ASK, pricing=PRICING, **settings):
    call = MeteredCall(
        "j/1/1",
        api=api,
        provider="openai",
        request=request,
        settings=MeterSettings(pricing=pricing, **settings),
    )
    call.is_sent = True
    return call


def chunk(content=None, finish=None, usage=None):
    choices = [{"index": 0, "delta": {"content": content}, "finish_reason": finish}]
    return {"model": "m", "choices": [] if usage else choices, "usage": usage}


USAGE = chunk(usage={"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11})


def fed(*events, **settings):
    call = new_call(**settings)
    pieces = [piece for event in events for piece in call.feed(event)]
    return call, pieces


def test_first_event_begins_the_call_in_the_stream():
    _, pieces = fed(chunk(""), chunk("a"), chunk("b"))

    assert [(piece.type, piece.content) for piece in pieces] == [
        ("start", ""),
        ("content", "a"),
        ("content", "b"),
    ]
    assert pieces[0].fields == {"call": "j/1/1", "model": "m", "provider": "openai", "attempt": "1"}


def test_good_end():
    call, _ = fed(chunk("a"), chunk("b"), chunk(finish="stop"), USAGE)

    settled = call.settle(None)

    assert call.fault() is None
    assert settled.report["tokens"] == {"input": 9, "output": 2}
    assert settled.report["costs"]["total"] == "0.000029"
    assert settled.report["status"] == "complete"
    assert [piece.type for piece in settled.pieces] == ["usage", "done"]
    facts = json.loads(settled.pieces[0].content)
    assert Decimal(facts["cost"]) == Decimal("0.000029")
    assert call.text == "ab"


@pytest.mark.parametrize(
    ("api", "request_", "answer"),
    [
        (
            "bedrock",
            {"modelId": "a.model", "messages": []},
            {"metadata": {"usage": {"inputTokens": 9, "outputTokens": 2, "totalTokens": 11}}},
        ),
        (
            "cohere",
            {"model": "a.model", "messages": []},
            {
                "type": "message-end",
                "delta": {"usage": {"tokens": {"input_tokens": 9, "output_tokens": 2}}},
            },
        ),
    ],
    ids=["bedrock", "cohere"],
)
def test_answer_that_names_no_model_has_the_price_of_the_one_that_was_asked(api, request_, answer):
    call = new_call(api, request=request_, pricing=Pricing({"a.model": {"input": 1, "output": 10}}))
    call.feed(answer)

    assert call.settle(None).report["costs"]["total"] == "0.000029"


def test_end_without_a_finish_reason_is_a_fault():
    call, _ = fed(chunk("a"), chunk("b"))

    fault = call.fault()

    assert isinstance(fault, StreamInterrupted)
    assert (fault.model, fault.delivered) == ("m", True)


def test_cut_stream_is_estimated_and_flagged():
    call, _ = fed(*[chunk("word ")] * 40)

    settled = call.settle(call.fault())

    assert settled.report["status"] == "missing"
    assert settled.report["details"]["source"] == "estimated"
    assert 30 <= settled.report["tokens"]["output"] <= 60
    assert settled.report["tokens"]["input"] >= 5
    assert [piece.type for piece in settled.pieces] == ["error", "usage"]


@pytest.mark.parametrize("left", [None, asyncio.CancelledError(), GeneratorExit()])
def test_reader_who_leaves_is_no_error(left):
    call, _ = fed(chunk("a"))

    settled = call.settle(left)

    assert [piece.type for piece in settled.pieces] == ["usage", "done"]
    assert settled.pieces[-1].content == "cancelled"
    assert settled.report["status"] == "missing"


def test_what_was_never_sent_is_not_booked():
    call = new_call()
    call.is_sent = False

    settled = call.settle(asyncio.CancelledError())

    assert settled.report is None
    assert settled.pieces == []


def test_refusal_is_not_booked():
    error = type("RateLimitError", (Exception,), {"status_code": 429, "__module__": "openai"})("no")

    settled = new_call().settle(error)

    assert settled.report is None


def test_lost_answer_is_booked_with_its_input():
    settled = new_call().settle(httpx.ReadTimeout("late"))

    assert settled.report["status"] == "missing"
    assert list(settled.report["tokens"]) == ["input"]


def test_whole_answer_without_usage_is_counted_and_flagged():
    call = new_call()
    message = {"content": "a sentence of some seven words or so"}
    call.take({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})

    settled = call.settle(None, whole=True)

    assert settled.report["status"] == "missing"
    assert settled.report["details"]["source"] == "estimated"
    assert 5 <= settled.report["tokens"]["output"] <= 12
    assert settled.report["tokens"]["input"] >= 5


def test_error_event_that_no_sdk_raises_is_a_fault_and_shown_once():
    call, pieces = fed({"choices": [], "error": {"message": "busy", "code": "overloaded"}})

    fault = call.fault()
    settled = call.settle(fault)

    assert isinstance(fault, StreamFailed)
    assert [piece.type for piece in pieces] == ["start"]
    assert [piece.type for piece in settled.pieces] == ["error", "usage"]
    assert settled.pieces[0].fields["category"] == "overloaded"


def test_thinking_is_kept_out_on_request():
    event = {"choices": [{"index": 0, "delta": {"reasoning_content": "hmm"}}]}

    call, pieces = fed(event, chunk("yes", finish="stop"), include_reasoning=False)

    assert [piece.type for piece in pieces] == ["start", "content"]
    assert call.settle(None).report["tokens"].get("reasoning", 0) > 0


def test_only_the_first_choice_is_the_text():
    second = {"choices": [{"index": 1, "delta": {"content": "other"}}]}

    call, pieces = fed(chunk("one"), second)

    assert call.text == "one"
    assert [piece.fields["index"] for piece in pieces[1:]] == ["0", "1"]


def test_unpriced_model_is_refused_before_it_is_sent():
    settings = MeterSettings(pricing=Pricing(on_unpriced="deny"))
    call = MeteredCall("j/1/1", api="openai.chat", provider="x", request=ASK, settings=settings)

    with pytest.raises(UnpricedModel):
        call.check()


# -- whole answers -------------------------------------------------------------

CALL = '{"at": "Oslo"}'
ANSWERS = {
    "chat": {
        "choices": [
            {
                "index": 0,
                "finish_reason": "tool_calls",
                "message": {
                    "reasoning_content": "hmm",
                    "content": "hi",
                    "tool_calls": [{"id": "c", "function": {"name": "weather", "arguments": CALL}}],
                },
            }
        ]
    },
    "mistral": {
        "choices": [
            {
                "index": 0,
                "finish_reason": "tool_calls",
                "message": {
                    "content": [
                        {"type": "thinking", "thinking": [{"type": "text", "text": "hmm"}]},
                        {"type": "text", "text": "hi"},
                    ],
                    "tool_calls": [
                        {"id": "c", "function": {"name": "weather", "arguments": {"at": "Oslo"}}}
                    ],
                },
            }
        ]
    },
    "anthropic": {
        "stop_reason": "tool_use",
        "content": [
            {"type": "thinking", "thinking": "hmm"},
            {"type": "text", "text": "hi"},
            {"type": "tool_use", "id": "c", "name": "weather", "input": {"at": "Oslo"}},
        ],
    },
    "responses": {
        "status": "completed",
        "output": [
            {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hmm"}]},
            {"type": "message", "content": [{"type": "output_text", "text": "hi"}]},
            {"type": "function_call", "call_id": "c", "name": "weather", "arguments": CALL},
        ],
    },
    "gemini": {
        "candidates": [
            {
                "finishReason": "STOP",
                "content": {
                    "parts": [
                        {"text": "hmm", "thought": True},
                        {"text": "hi"},
                        {"functionCall": {"id": "c", "name": "weather", "args": {"at": "Oslo"}}},
                    ]
                },
            }
        ]
    },
    "cohere": {
        "finish_reason": "TOOL_CALL",
        "message": {
            "content": [{"type": "thinking", "thinking": "hmm"}, {"type": "text", "text": "hi"}],
            "tool_calls": [{"id": "c", "function": {"name": "weather", "arguments": CALL}}],
        },
    },
    "ollama": {
        "done": True,
        "done_reason": "stop",
        "message": {
            "thinking": "hmm",
            "content": "hi",
            "tool_calls": [{"function": {"name": "weather", "arguments": {"at": "Oslo"}}}],
        },
    },
    "bedrock": {
        "stopReason": "tool_use",
        "output": {
            "message": {
                "content": [
                    {"reasoningContent": {"reasoningText": {"text": "hmm"}}},
                    {"text": "hi"},
                    {"toolUse": {"toolUseId": "c", "name": "weather", "input": {"at": "Oslo"}}},
                ]
            }
        },
    },
}


@pytest.mark.parametrize("vendor", ANSWERS)
def test_whole_answers_read_alike(vendor):
    pieces, finish = read_answer(ANSWERS[vendor])

    assert [(piece.type, piece.content) for piece in pieces] == [
        ("reasoning", "hmm"),
        ("content", "hi"),
        ("tool_call", CALL),
    ]
    assert pieces[2].fields["name"] == "weather"
    assert pieces[2].fields.get("id", "c") == "c"
    assert finish.reason == "tool_calls"


def test_calls_that_the_vendor_runs_itself_are_not_the_callers_to_answer():
    def block(index, kind, **more):
        return {
            "type": "content_block_start",
            "index": index,
            "content_block": {"type": kind} | more,
        }

    call = new_call("anthropic.messages")
    events = [
        block(0, "server_tool_use", id="s", name="web_search"),
        {
            "type": "content_block_delta",
            "index": 0,
            "delta": {"type": "input_json_delta", "partial_json": "{}"},
        },
        {"type": "content_block_stop", "index": 0},
        block(1, "tool_use", id="t", name="look"),
        {"type": "content_block_stop", "index": 1},
    ]

    shown = [piece for event in events for piece in call.feed(event)]

    assert [piece.fields["index"] for piece in shown if piece.type == "tool_call"] == list("00011")
    assert call.tool_calls == [{"id": "t", "name": "look", "arguments": ""}]


def test_answer_without_text_has_no_pieces():
    pieces, finish = read_answer({"object": "list", "data": [{"embedding": [0.5]}]})

    assert pieces == []
    assert finish.reason == "unknown"


@pytest.mark.parametrize(
    ("body", "category"),
    [
        ({"error": {"code": 502, "message": "Provider returned error"}}, "server"),
        ({"error": {"code": 429, "message": "slow down"}, "choices": None}, "rate_limit"),
        ({"choices": [{"message": {}, "error": {"code": 503, "message": "no"}}]}, "unavailable"),
        ({"type": "error", "error": {"type": "overloaded_error", "message": "no"}}, "overloaded"),
        ({"status": "failed", "output": [], "error": {"code": "server_error"}}, "server"),
        ({"error": "model is loading"}, "server"),
    ],
)
def test_error_as_the_answer_of_status_200_is_an_error(body, category):
    call = new_call("openai.chat")

    with pytest.raises(StreamFailed) as raised:
        call.take(body)

    assert classify_error(raised.value).category == category
    assert call.settle(raised.value, whole=True).report["status"] == "missing"


@pytest.mark.parametrize("body", [{}, {"sdk_http_response": {}, "candidates": None}])
def test_answer_that_says_nothing_is_unreadable(body):
    with pytest.raises(AnswerUnreadable, match="empty"):
        new_call("gemini").take(body)


def test_tool_calls_of_an_answer():
    call = new_call("anthropic.messages")

    call.take(ANSWERS["anthropic"])

    assert call.tool_calls == [{"id": "c", "name": "weather", "arguments": CALL}]
    assert call.text == "hi"


def test_tool_calls_are_told_apart_by_any_index_in_any_order():
    def part(index, **function):
        call = {"index": index, "function": function}
        if "name" in function:
            call["id"] = f"id-{index}"
        return {"choices": [{"index": 0, "delta": {"tool_calls": [call]}}]}

    call, pieces = fed(
        part(10**9, name="far", arguments='{"a"'),
        part(0, name="near", arguments=""),
        part(-3, arguments="{}"),
        part(10**9, arguments=":1}"),
        part(7, arguments="[]"),
        chunk(finish="tool_calls"),
    )

    assert call.tool_calls == [
        {"id": "id-1000000000", "name": "far", "arguments": '{"a":1}'},
        {"id": "id-0", "name": "near", "arguments": "{}"},
        {"id": "", "name": "", "arguments": "[]"},
    ]
    closed = [piece.fields["index"] for piece in pieces if piece.fields.get("done")]
    assert closed == ["1000000000", "0"]


def test_reservations_follow_what_a_models_calls_have_used():
    learned = Corrections()

    def reserved():
        call = new_call(learned=learned, default_output=700)
        amounts = call.reservation()["tokens"]
        for event in (chunk("a"), chunk(finish="stop"), USAGE):
            call.feed(event)
        call.settle(None)
        return amounts

    first = reserved()
    for _ in range(30):
        last = reserved()

    assert first["output"] == 700
    assert last["output"] == 2
    assert first["input"] != last["input"] == pytest.approx(9, abs=1)


def test_cut_answers_and_calls_without_usage_teach_nothing_of_length():
    learned = Corrections()
    for end in ("length", None):
        for _ in range(12):
            call = new_call(learned=learned)
            call.reservation()
            for event in (chunk("a"), *([chunk(finish=end), USAGE] if end else [])):
                call.feed(event)
            call.settle(None)

    assert learned.usual_output("m") is None


@pytest.mark.parametrize(
    ("policy", "fate"),
    [("deny_capped", "refuse"), ("allow", "don't hold"), (lambda _: None, "refuse")],
)
def test_model_without_a_price_is_warned_of_once(caplog, policy, fate):
    model = f"model-that-no-table-has-{policy}"

    for _ in range(2):
        new_call(request={**ASK, "model": model}, pricing=Pricing(on_unpriced=policy)).reservation()
        new_call().reservation()

    (warning,) = caplog.records
    assert warning.levelname == "WARNING"
    assert warning.getMessage().startswith(
        f"no price is known for openai/{model}: caps on money {fate} its calls"
    )
