"""Real SDKs read the recorded streams from a loopback transport; what they hand out is accumulated
and translated.
"""

import json
from collections.abc import Iterable
from pathlib import Path

import anthropic
import httpx2
import openai
import pytest

from glidemq_llm import FinishReason, UsageAccumulator, translator

CASES = json.loads((Path(__file__).parent / "data" / "usage_cases.json").read_text("utf-8"))[
    "cases"
]
CHAT = [c for c in CASES if c["streaming"] and "choices" in c["raw"][0]]
MESSAGES = [c for c in CASES if c["streaming"] and c["raw"][0].get("type") == "message_start"]


def served(body: str) -> httpx2.Client:
    headers = {"content-type": "text/event-stream"}
    return httpx2.Client(
        transport=httpx2.MockTransport(lambda _: httpx2.Response(200, text=body, headers=headers))
    )


def taken_in(api: str, events: Iterable[object]):
    usage, translation = UsageAccumulator(), translator(api)
    pieces = []
    for event in events:
        usage.feed(event)
        pieces += translation.translate(event)
    return usage.result(), pieces, translation.finish


@pytest.mark.parametrize("case", CHAT, ids=lambda case: case["id"])
def test_openai_sdk(case):
    lines = [json.dumps({"id": "x", "created": 1, "model": "m", **event}) for event in case["raw"]]
    body = "".join(f"data: {line}\n\n" for line in [*lines, "[DONE]"])

    with served(body) as http, openai.OpenAI(api_key="k", http_client=http) as client:
        usage, pieces, finish = taken_in(
            "openai.chat", client.chat.completions.create(model="m", messages=[], stream=True)
        )

    assert dict(usage.tokens) == case["expected"]["tokens"]
    assert usage.status == case["expected"]["status"]
    assert all(piece.content for piece in pieces)
    ends = [choice["finish_reason"] for event in case["raw"] for choice in event["choices"]]
    assert (finish is not None) == any(ends)


@pytest.mark.parametrize("case", MESSAGES, ids=lambda case: case["id"])
def test_anthropic_sdk(case):
    body = "".join(
        f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in case["raw"]
    )

    with served(body) as http, anthropic.Anthropic(api_key="k", http_client=http) as client:
        usage, pieces, finish = taken_in(
            "anthropic.messages",
            client.messages.create(model="m", max_tokens=1, messages=[], stream=True),
        )

    assert dict(usage.tokens) == case["expected"]["tokens"]
    assert usage.status == case["expected"]["status"]
    assert pieces
    assert (finish is None) == (case["expected"]["status"] == "partial")


def test_openai_responses_sdk():
    case = next(c for c in CASES if c["id"] == "openai-responses-stream-incomplete")
    text = {
        "type": "response.output_text.delta",
        "output_index": 0,
        "content_index": 0,
        "delta": "Hel",
    }
    events = [
        case["raw"][0],
        {**text, "item_id": "i", "sequence_number": 1, "logprobs": []},
        case["raw"][1],
    ]
    body = "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events)

    with served(body) as http, openai.OpenAI(api_key="k", http_client=http) as client:
        usage, pieces, finish = taken_in(
            "openai.responses", client.responses.create(model="m", input="hi", stream=True)
        )

    assert dict(usage.tokens) == case["expected"]["tokens"]
    assert [(piece.type, piece.content) for piece in pieces] == [("content", "Hel")]
    assert finish.reason is FinishReason.LENGTH
