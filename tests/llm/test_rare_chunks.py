"""What only some vendors put into an answer: tools of their own, encrypted thinking, images. Told in the one vocabulary."""

from __future__ import annotations

import base64
import json
import struct
from typing import Any

import pytest

from glidemq_llm import FinishReason, translator
from glidemq_llm._answers import read_answer
from glidemq_llm.metering import MeteredCall, MeterSettings

PNG = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + struct.pack("!II", 640, 480) + bytes(1_000_000)
WRITTEN = base64.b64encode(PNG).decode()
FACTS = {"media_type": "image/png", "bytes": str(len(PNG)), "size": "640x480"}

SEARCH = {
    "index": 0,
    "type": "search",
    "arguments": '{"query": "moon"}',
    "output": "Title: Moon",
    "search_results": {"results": [{"url": "u"}]},
}
ENCRYPTED = {"type": "reasoning.encrypted", "data": "secret", "index": 1}
CLEAR = {"type": "reasoning.text", "text": "Hm", "signature": None, "index": 0}
SUMMARY = {"type": "reasoning.summary", "summary": "So", "index": 0}
DATA_URL = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{WRITTEN}"}}
ADDRESS = {"type": "image_url", "image_url": {"url": "https://cdn.example/moon.png"}}


def told(api: str, *events: dict) -> list[tuple[str, str, dict]]:
    translation = translator(api)
    return plain(piece for event in events for piece in translation.translate(event))


def whole(answer: dict) -> list[tuple[str, str, dict]]:
    return plain(read_answer(answer)[0])


def plain(pieces: Any) -> list[tuple[str, str, dict]]:
    return [(str(piece.type), piece.content, dict(piece.fields)) for piece in pieces]


CHAT = [
    ({"executed_tools": [{**SEARCH, "output": None}]}, []),
    (
        {"executed_tools": [SEARCH]},
        [("tool_result", json.dumps(SEARCH), {"index": "0", "name": "search"})],
    ),
    (
        {"reasoning_details": [CLEAR, ENCRYPTED]},
        [("reasoning", "Hm", {"index": "0"})],
    ),
    (
        {"reasoning_details": [SUMMARY]},
        [("reasoning", "So", {"index": "0", "kind": "summary"})],
    ),
    (
        {"reasoning": "Hm", "reasoning_details": [CLEAR]},
        [("reasoning", "Hm", {"index": "0"})],
    ),
    (
        {"content": "see", "images": [DATA_URL, ADDRESS]},
        [
            ("content", "see", {"index": "0"}),
            ("image", "", {"index": "0", **FACTS}),
            ("image", "https://cdn.example/moon.png", {"index": "1"}),
        ],
    ),
]


@pytest.mark.parametrize(("said", "pieces"), CHAT)
def test_groqs_tools_openrouters_thinking_and_images(said, pieces):
    assert told("openai.chat", {"choices": [{"index": 0, "delta": said}]}) == pieces
    assert whole({"choices": [{"index": 0, "message": said}]}) == pieces


GENERATED = {
    "type": "image_generation_call",
    "id": "ig",
    "status": "completed",
    "output_format": "png",
    "result": WRITTEN,
}


def test_openai_images_and_their_drafts():
    draft = {
        "type": "response.image_generation_call.partial_image",
        "item_id": "ig",
        "output_index": 0,
        "output_format": "png",
        "partial_image_b64": WRITTEN,
        "partial_image_index": 0,
    }
    done = {"type": "response.output_item.done", "output_index": 0, "item": GENERATED}
    finished = ("image", "", {"id": "ig", **FACTS})

    assert told("openai.responses", draft, done) == [
        ("image", "", {"id": "ig", "partial": "1", **FACTS}),
        finished,
    ]
    assert whole({"output": [GENERATED], "status": "completed"}) == [finished]


def test_openai_image_that_failed_is_what_its_tool_has_found():
    failed = {"type": "image_generation_call", "id": "ig", "status": "failed", "result": None}
    named = {"id": "ig", "name": "image_generation", "error": "1"}
    done = {"type": "response.output_item.done", "output_index": 0, "item": failed}

    assert told("openai.responses", done) == [("tool_result", json.dumps(failed), named)]


@pytest.mark.parametrize(
    "parts",
    [
        [{"inlineData": {"mimeType": "image/png", "data": WRITTEN}}],
        [{"inline_data": {"mime_type": "image/png", "data": PNG}}],
    ],
)
def test_gemini_images(parts):
    answer = {"candidates": [{"index": 0, "content": {"parts": parts}, "finishReason": "STOP"}]}

    assert told("gemini", answer) == whole(answer) == [("image", "", {"index": "0", **FACTS})]


def test_gemini_draft_address_and_sound():
    parts = [
        {"inline_data": {"mime_type": "image/png", "data": PNG}, "thought": True},
        {"file_data": {"mime_type": "image/jpeg", "file_uri": "https://files.example/1"}},
        {"inline_data": {"mime_type": "audio/wav", "data": b"..."}},
    ]

    assert told("gemini", {"candidates": [{"content": {"parts": parts}}]}) == [
        ("image", "", {"index": "0", "partial": "1", **FACTS}),
        ("image", "https://files.example/1", {"index": "0", "media_type": "image/jpeg"}),
    ]


@pytest.mark.parametrize("head", ["data:", "data:image/png;base64,", "https://", ""])
def test_no_image_in_whatever_form_is_in_the_stream(head):
    image = {"type": "image_url", "image_url": {"url": head + "A" * 1_000_000}}

    (piece,) = told("openai.chat", {"choices": [{"index": 0, "delta": {"images": [image]}}]})

    assert len(json.dumps(piece)) < 5000


def bedrock(kind: str, index: int, **more: object) -> dict:
    return {f"contentBlock{kind}": {"contentBlockIndex": index, **more}}


def test_bedrocks_own_tools_and_images():
    call = {"toolUseId": "t", "name": "nova_grounding", "type": "server_tool_use"}
    found = {"toolUseId": "t", "type": "nova_grounding_result", "status": "error"}
    texts = [{"text": "no "}, {"text": "net"}]
    streamed = told(
        "bedrock",
        bedrock("Start", 0, start={"toolUse": call}),
        bedrock("Delta", 0, delta={"toolUse": {"input": "{}"}}),
        bedrock("Stop", 0),
        bedrock("Start", 1, start={"toolResult": found}),
        bedrock("Delta", 1, delta={"toolResult": texts[:1]}),
        bedrock("Delta", 1, delta={"toolResult": [*texts[1:], {"json": {"code": 1}}]}),
        bedrock("Stop", 1),
        bedrock("Start", 2, start={"image": {"format": "png"}}),
        bedrock("Delta", 2, delta={"image": {"source": {"bytes": PNG[:500]}}}),
        bedrock("Delta", 2, delta={"image": {"source": {"bytes": PNG[500:]}}}),
        bedrock("Stop", 2),
    )
    content = [*texts, {"json": {"code": 1}}]
    blocks = [
        {"toolUse": {**call, "input": "{}"}},
        {"toolResult": {**found, "content": content}},
        {"image": {"format": "png", "source": {"bytes": PNG}}},
    ]

    named = {"index": "0", "id": "t", "name": "nova_grounding"}
    result = (
        "tool_result",
        json.dumps([{"text": "no net"}, {"json": {"code": 1}}]),
        {"id": "t", "name": "nova_grounding_result", "error": "1"},
    )
    image = ("image", "", {"index": "2", **FACTS})
    assert streamed == [
        ("tool_call", "", {**named, "server": "1"}),
        ("tool_call", "{}", {"index": "0", "id": "t"}),
        ("tool_call", "", {"index": "0", "id": "t", "done": "1"}),
        result,
        image,
    ]
    assert whole({"output": {"message": {"content": blocks}}}) == [
        ("tool_call", "{}", {**named, "done": "1", "server": "1"}),
        result,
        image,
    ]


def test_answer_of_images_alone_was_delivered():
    """A fallback after it has to take it back, and it was billed."""
    settings = MeterSettings()
    call = MeteredCall("j/1/1", api="openai.responses", provider="p", request={}, settings=settings)
    item = {"type": "response.output_item.done", "output_index": 0, "item": GENERATED}

    pieces = call.feed(item)

    assert call.delivered
    assert [str(piece.type) for piece in pieces] == ["start", "image"]
    assert sum(len(piece.content) for piece in pieces) == 0
    assert call.finish is None or call.finish.reason is not FinishReason.STOP
