"""The events of every API as pieces of one vocabulary."""

# size: the streams of seven APIs, event by event

import json
from types import SimpleNamespace

import pytest
from openai.types.chat import ChatCompletionChunk

from glidemq_llm import FinishReason, translator
from glidemq_llm._answers import read_answer


def told(api: str, events: list) -> tuple[list[tuple[str, str, dict]], FinishReason | None]:
    """The pieces of a whole stream and why it ended."""
    translation = translator(api)
    pieces = [piece for event in events for piece in translation.translate(event)]
    finish = translation.finish.reason if translation.finish else None
    return [(str(piece.type), piece.content, dict(piece.fields)) for piece in pieces], finish


def delta(index: int = 0, finish: str | None = None, **fields: object) -> dict:
    return {"choices": [{"index": index, "delta": fields, "finish_reason": finish}], "usage": None}


CHAT = [
    {"choices": [], "prompt_filter_results": []},
    delta(role="assistant", content=""),
    delta(reasoning_content="Hm"),
    delta(content="Hel"),
    delta(1, content="Hi"),
    delta(tool_calls=[{"index": 0, "id": "c1", "function": {"name": "look_up", "arguments": ""}}]),
    delta(tool_calls=[{"index": 0, "function": {"arguments": '{"a"'}}]),
    delta(tool_calls=[{"index": 0, "function": {"arguments": ":1}"}}]),
    delta(finish="tool_calls"),
    {"choices": [], "usage": {"prompt_tokens": 1}},
]
CHAT_PIECES = [
    ("reasoning", "Hm", {"index": "0"}),
    ("content", "Hel", {"index": "0"}),
    ("content", "Hi", {"index": "1"}),
    ("tool_call", "", {"index": "0", "id": "c1", "name": "look_up"}),
    ("tool_call", '{"a"', {"index": "0", "id": "c1"}),
    ("tool_call", ":1}", {"index": "0", "id": "c1"}),
    ("tool_call", "", {"index": "0", "id": "c1", "done": "1"}),
]


def test_openai_chat():
    assert told("openai.chat", CHAT) == (CHAT_PIECES, FinishReason.TOOL_CALLS)


def test_objects_of_the_sdk_translate_like_their_json():
    objects = [ChatCompletionChunk.model_construct(**event) for event in CHAT]

    assert told("openai.chat", objects) == (CHAT_PIECES, FinishReason.TOOL_CALLS)


def test_validated_chunks_of_the_sdk():
    base = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    chunks = [ChatCompletionChunk.model_validate({**base, **event}) for event in CHAT[1:-1]]

    assert told("openai.chat", chunks) == (CHAT_PIECES, FinishReason.TOOL_CALLS)


@pytest.mark.parametrize(
    ("event", "pieces"),
    [
        (delta(reasoning="so"), [("reasoning", "so", {"index": "0"})]),
        (delta(refusal="I can't"), [("refusal", "I can't", {})]),
        (delta(content=None), []),
        ({"choices": [{"index": 0, "delta": None, "finish_reason": None}]}, []),
        ({"choices": [{"index": 0, "text": "old"}]}, [("content", "old", {"index": "0"})]),
        (
            {"data": {"choices": [{"index": 0, "delta": {"content": "hi"}}]}},
            [("content", "hi", {"index": "0"})],
        ),
        (
            delta(
                content=[
                    {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
                    {"type": "text", "text": "x"},
                ]
            ),
            [("reasoning", "hm", {"index": "0"}), ("content", "x", {"index": "0"})],
        ),
        (
            delta(tool_calls=[{"id": "null", "function": {"name": "f", "arguments": {"a": 1}}}]),
            [("tool_call", '{"a": 1}', {"index": "0", "name": "f"})],
        ),
        (
            delta(function_call={"name": "f", "arguments": "{}"}),
            [("tool_call", "{}", {"index": "0", "name": "f"})],
        ),
        ({"error": {"message": "busy", "code": 502}}, [("error", "busy", {"code": "502"})]),
        (
            {
                "error": {"message": "busy", "code": 502},
                "choices": [{"index": 0, "delta": {"content": ""}, "finish_reason": "error"}],
            },
            [("error", "busy", {"code": "502"})],
        ),
        (
            delta(tool_calls=[{"index": 10**9, "id": "c", "function": {"name": "f"}}]),
            [("tool_call", "", {"index": "1000000000", "id": "c", "name": "f"})],
        ),
        (
            delta(content="see", annotations=[{"type": "url_citation"}]),
            [("content", "see", {"index": "0"}), ("citation", '{"type": "url_citation"}', {})],
        ),
        # Perplexity names its sources in every chunk, in a short and in a long form.
        ({**delta(content="x"), "citations": ["u"]}, [("content", "x", {"index": "0"})]),
        ({**delta(finish="stop"), "citations": ["u"]}, [("citation", '{"url": "u"}', {})]),
        (
            {
                **delta(finish="stop"),
                "citations": ["u"],
                "search_results": [{"url": "u", "title": "t"}],
            },
            [("citation", '{"url": "u", "title": "t"}', {})],
        ),
    ],
)
def test_dialects_of_openai_chat(event, pieces):
    assert told("openai.chat", [event])[0] == pieces


def test_openai_responses():
    call = {"type": "function_call", "call_id": "c1", "name": "look_up"}
    events = [
        {"type": "response.created", "response": {}},
        {"type": "response.reasoning_summary_text.delta", "output_index": 0, "delta": "sum"},
        {"type": "response.reasoning_text.delta", "output_index": 0, "delta": "raw"},
        {"type": "response.output_text.delta", "output_index": 1, "delta": "Hel"},
        {"type": "response.output_text.annotation.added", "annotation": {"url": "u"}},
        {"type": "response.refusal.delta", "output_index": 1, "delta": "no"},
        {"type": "response.output_item.added", "output_index": 2, "item": {"type": "message"}},
        {"type": "response.output_item.added", "output_index": 2, "item": call},
        {"type": "response.function_call_arguments.delta", "output_index": 2, "delta": "{}"},
        {"type": "response.function_call_arguments.done", "output_index": 2, "arguments": "{}"},
        {"type": "response.completed", "response": {"output": [call]}},
    ]

    assert told("openai.responses", events) == (
        [
            ("reasoning", "sum", {"index": "0", "kind": "summary"}),
            ("reasoning", "raw", {"index": "0", "kind": "text"}),
            ("content", "Hel", {"index": "1"}),
            ("citation", '{"url": "u"}', {}),
            ("refusal", "no", {"index": "1"}),
            ("tool_call", "", {"index": "2", "id": "c1", "name": "look_up"}),
            ("tool_call", "{}", {"index": "2", "id": "c1"}),
            ("tool_call", "", {"index": "2", "id": "c1", "done": "1"}),
        ],
        FinishReason.TOOL_CALLS,
    )


@pytest.mark.parametrize(
    ("event", "reason", "pieces"),
    [
        ({"type": "response.completed", "response": {}}, "stop", []),
        (
            {
                "type": "response.incomplete",
                "response": {"incomplete_details": {"reason": "max_output_tokens"}},
            },
            "length",
            [],
        ),
        (
            {
                "type": "response.incomplete",
                "response": {"incomplete_details": {"reason": "content_filter"}},
            },
            "content_filter",
            [],
        ),
        (
            {
                "type": "response.failed",
                "response": {"error": {"code": "server_error", "message": "oh"}},
            },
            "error",
            [("error", "oh", {"code": "server_error"})],
        ),
        (
            {"type": "error", "message": "oh", "code": "x"},
            "error",
            [("error", "oh", {"code": "x"})],
        ),
    ],
)
def test_ends_of_a_responses_stream(event, reason, pieces):
    assert told("openai.responses", [event]) == (pieces, reason)


def test_anthropic_messages():
    events = [
        {"type": "message_start", "message": {"usage": {"input_tokens": 1}}},
        {"type": "ping"},
        {
            "type": "content_block_start",
            "index": 0,
            "content_block": {"type": "thinking", "thinking": ""},
        },
        {
            "type": "content_block_delta",
            "index": 0,
            "delta": {"type": "thinking_delta", "thinking": "hm"},
        },
        {
            "type": "content_block_delta",
            "index": 0,
            "delta": {"type": "signature_delta", "signature": "s"},
        },
        {"type": "content_block_stop", "index": 0},
        {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "Hel"}},
        {
            "type": "content_block_delta",
            "index": 1,
            "delta": {"type": "citations_delta", "citation": {"u": 1}},
        },
        {
            "type": "content_block_start",
            "index": 2,
            "content_block": {"type": "tool_use", "id": "t", "name": "f"},
        },
        {
            "type": "content_block_delta",
            "index": 2,
            "delta": {"type": "input_json_delta", "partial_json": ""},
        },
        {
            "type": "content_block_delta",
            "index": 2,
            "delta": {"type": "input_json_delta", "partial_json": "{}"},
        },
        {"type": "content_block_stop", "index": 2},
        {
            "type": "content_block_start",
            "index": 3,
            "content_block": {"type": "web_search_tool_result", "tool_use_id": "s", "content": [1]},
        },
        {
            "type": "message_delta",
            "delta": {"stop_reason": "tool_use"},
            "usage": {"output_tokens": 3},
        },
        {"type": "message_stop"},
    ]

    assert told("anthropic.messages", events) == (
        [
            ("reasoning", "hm", {"index": "0"}),
            ("content", "Hel", {"index": "1"}),
            ("citation", '{"u": 1}', {"index": "1"}),
            ("tool_call", "", {"index": "2", "id": "t", "name": "f"}),
            ("tool_call", "{}", {"index": "2", "id": "t"}),
            ("tool_call", "", {"index": "2", "id": "t", "done": "1"}),
            ("tool_result", "[1]", {"id": "s"}),
        ],
        FinishReason.TOOL_CALLS,
    )


@pytest.mark.parametrize(
    ("event", "reason", "pieces"),
    [
        (
            {
                "type": "message_delta",
                "delta": {"stop_reason": "refusal", "stop_details": {"category": "cyber"}},
            },
            "refusal",
            [("refusal", "cyber", {})],
        ),
        ({"type": "message_delta", "delta": {"stop_reason": "pause_turn"}}, "pause", []),
        ({"type": "message_delta", "delta": {"stop_reason": None}}, None, []),
        ({"type": "message_stop"}, "unknown", []),
        (
            {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}},
            "error",
            [("error", "Overloaded", {"code": "overloaded_error"})],
        ),
    ],
)
def test_ends_of_an_anthropic_stream(event, reason, pieces):
    assert told("anthropic.messages", [event]) == (pieces, reason)


def test_gemini():
    parts = [
        {"text": "hm", "thought": True},
        {"text": "Hel"},
        {"functionCall": {"name": "f", "args": {"a": 1}}},
        {"codeExecutionResult": {"output": "2"}},
    ]
    events = [
        {
            "candidates": [
                {
                    "content": {"parts": parts},
                    "index": 0,
                    "finishReason": "FINISH_REASON_UNSPECIFIED",
                }
            ]
        },
        {
            "candidates": [{"finishReason": "STOP", "groundingMetadata": {"q": 1}}],
            "usageMetadata": {},
        },
    ]

    assert told("gemini", events) == (
        [
            ("reasoning", "hm", {"index": "0"}),
            ("content", "Hel", {"index": "0"}),
            ("tool_call", '{"a": 1}', {"index": "0", "name": "f", "done": "1"}),
            ("tool_result", '{"output": "2"}', {"index": "0"}),
            ("citation", '{"q": 1}', {}),
        ],
        FinishReason.TOOL_CALLS,
    )


def test_gemini_objects_in_snake_case():
    part = SimpleNamespace(text="Hi", thought=None)
    chunk = SimpleNamespace(
        candidates=[
            SimpleNamespace(
                content=SimpleNamespace(parts=[part]), finish_reason="MAX_TOKENS", index=0
            )
        ]
    )

    assert told("gemini", [chunk]) == ([("content", "Hi", {"index": "0"})], FinishReason.LENGTH)


def test_blocked_gemini_prompt_is_a_filter():
    assert told("gemini", [{"promptFeedback": {"blockReason": "SAFETY"}}]) == (
        [("refusal", "SAFETY", {})],
        FinishReason.CONTENT_FILTER,
    )


def test_cohere():
    def message(kind: str, **fields: object) -> dict:
        return {"type": kind, "index": 0, "delta": {"message": fields}}

    events = [
        {"type": "message-start"},
        message("tool-plan-delta", tool_plan="I will"),
        message(
            "tool-call-start", tool_calls={"id": "c", "function": {"name": "f", "arguments": ""}}
        ),
        message("tool-call-delta", tool_calls={"function": {"arguments": "{}"}}),
        {"type": "tool-call-end", "index": 0},
        message("content-start", content={"type": "text", "text": ""}),
        message("content-delta", content={"thinking": "hm"}),
        message("content-delta", content={"text": "Hel"}),
        message("citation-start", citations={"text": "Hel"}),
        {"type": "message-end", "delta": {"finish_reason": "MAX_TOKENS", "usage": {}}},
    ]

    assert told("cohere", events) == (
        [
            ("reasoning", "I will", {"index": "0"}),
            ("tool_call", "", {"index": "0", "id": "c", "name": "f"}),
            ("tool_call", "{}", {"index": "0", "id": "c"}),
            ("tool_call", "", {"index": "0", "id": "c", "done": "1"}),
            ("reasoning", "hm", {"index": "0"}),
            ("content", "Hel", {"index": "0"}),
            ("citation", '{"text": "Hel"}', {}),
        ],
        FinishReason.LENGTH,
    )


@pytest.mark.parametrize("more", [{}, {"error": "it ended with ERROR"}])
def test_cohere_that_ends_with_an_error_has_failed(more):
    end = {"type": "message-end", "delta": {"finish_reason": "ERROR", **more}}

    assert told("cohere", [end]) == ([("error", "it ended with ERROR", {})], FinishReason.ERROR)


def test_ollama():
    call = {"function": {"name": "f", "arguments": {"a": 1}}}
    events = [
        {"message": {"content": "", "thinking": "hm"}, "done": False},
        {"message": {"content": "Hel"}, "done": False},
        {"response": "lo", "done": False},
        {"message": {"content": "", "tool_calls": [call]}, "done": False},
        {"message": {"content": ""}, "done": True, "done_reason": "stop", "eval_count": 1},
    ]

    assert told("ollama", events) == (
        [
            ("reasoning", "hm", {"index": "0"}),
            ("content", "Hel", {"index": "0"}),
            ("content", "lo", {"index": "0"}),
            ("tool_call", '{"a": 1}', {"index": "0", "name": "f", "done": "1"}),
        ],
        FinishReason.TOOL_CALLS,
    )
    assert told("ollama", [{"error": "no model"}]) == (
        [("error", "no model", {})],
        FinishReason.ERROR,
    )


def test_bedrock():
    def block(**delta: object) -> dict:
        return {"contentBlockDelta": {"contentBlockIndex": 1, "delta": delta}}

    events = [
        {"messageStart": {"role": "assistant"}},
        block(reasoningContent={"text": "hm"}),
        block(reasoningContent={"signature": "s"}),
        block(text="Hel"),
        {
            "contentBlockStart": {
                "contentBlockIndex": 1,
                "start": {"toolUse": {"toolUseId": "t", "name": "f"}},
            }
        },
        block(toolUse={"input": "{}"}),
        {"contentBlockStop": {"contentBlockIndex": 1}},
        {"contentBlockStop": {"contentBlockIndex": 2}},
        {"messageStop": {"stopReason": "guardrail_intervened"}},
        {"metadata": {"usage": {}}},
    ]

    assert told("bedrock", events) == (
        [
            ("reasoning", "hm", {"index": "1"}),
            ("content", "Hel", {"index": "1"}),
            ("tool_call", "", {"index": "1", "id": "t", "name": "f"}),
            ("tool_call", "{}", {"index": "1", "id": "t"}),
            ("tool_call", "", {"index": "1", "id": "t", "done": "1"}),
        ],
        FinishReason.CONTENT_FILTER,
    )
    assert told("bedrock", [{"throttlingException": {"message": "slow"}}]) == (
        [("error", "slow", {"code": "throttlingException"})],
        FinishReason.ERROR,
    )


@pytest.mark.parametrize(
    ("api", "terminal", "ordinary"),
    [
        ("openai.chat", delta(finish="stop"), delta(content="x")),
        (
            "openai.chat",
            {"data": delta(finish="stop")},
            {"choices": [], "usage": {"prompt_tokens": 1}},
        ),
        ("openai.responses", {"type": "response.failed"}, {"type": "response.in_progress"}),
        ("anthropic.messages", {"type": "message_stop"}, {"type": "ping"}),
        ("gemini", {"candidates": [{"finishReason": "STOP"}]}, {"candidates": [{}]}),
        ("cohere", {"type": "message-end", "delta": {}}, {"type": "content-end"}),
        ("ollama", {"done": True}, {"done": False}),
        ("bedrock", {"messageStop": {}}, {"metadata": {}}),
    ],
)
def test_terminal_markers(api, terminal, ordinary):
    translation = translator(api)

    assert translation.is_terminal(terminal)
    assert not translation.is_terminal(ordinary)


@pytest.mark.parametrize(
    "api",
    [
        "openai.chat",
        "openai.responses",
        "anthropic.messages",
        "gemini",
        "cohere",
        "ollama",
        "bedrock",
    ],
)
@pytest.mark.parametrize(
    "event",
    [{}, None, {"type": None}, {"type": "something.new"}, {"choices": None}, SimpleNamespace()],
)
def test_unknown_event_is_a_sign_of_life_and_nothing_else(api, event):
    assert told(api, [event]) == ([], None)


def test_stream_without_a_terminal_marker_has_no_finish():
    assert told("openai.chat", CHAT[:4])[1] is None


def test_streams_do_not_share_their_state():
    first, second = translator("openai.chat"), translator("openai.chat")

    first.translate(delta(finish="stop"))

    assert second.finish is None


def test_unknown_api_is_a_key_error():
    with pytest.raises(KeyError):
        translator("telepathy")


def test_fields_of_pieces_are_text():
    pieces, _ = told("openai.chat", CHAT)

    assert all(isinstance(value, str) for _, _, fields in pieces for value in fields.values())
    assert json.dumps(pieces)


SEARCH = {"type": "web_search_call", "id": "ws", "status": "completed", "action": {"query": "q"}}
FAILED = {"type": "mcp_call", "id": "mc", "name": "ask", "error": "no"}
FOUND = {"type": "mcp_tool_result", "tool_use_id": "t", "is_error": True, "content": []}
CODE = {"executableCode": {"language": "PYTHON", "code": "1+1"}}


def searched(item: dict) -> dict:
    return {"type": "response.output_item.done", "output_index": 0, "item": item}


@pytest.mark.parametrize(
    ("api", "event", "pieces"),
    [
        (
            "openai.responses",
            searched(SEARCH),
            [("tool_result", json.dumps(SEARCH), {"id": "ws", "name": "web_search"})],
        ),
        (
            "openai.responses",
            searched(FAILED),
            [("tool_result", json.dumps(FAILED), {"id": "mc", "name": "mcp", "error": "1"})],
        ),
        ("openai.responses", searched({"type": "message", "content": []}), []),
        (
            "anthropic.messages",
            {"type": "content_block_start", "index": 1, "content_block": FOUND},
            [("tool_result", "[]", {"id": "t", "error": "1"})],
        ),
        (
            "anthropic.messages",
            {
                "type": "content_block_start",
                "index": 1,
                "content_block": {"type": "server_tool_use", "id": "t", "name": "web_search"},
            },
            [("tool_call", "", {"index": "1", "id": "t", "name": "web_search", "server": "1"})],
        ),
        (
            "gemini",
            {"candidates": [{"citationMetadata": {"citations": [1]}}]},
            [("citation", '{"citations": [1]}', {})],
        ),
        (
            "bedrock",
            {"contentBlockDelta": {"contentBlockIndex": 0, "delta": {"citation": {"title": "t"}}}},
            [("citation", '{"title": "t"}', {"index": "0"})],
        ),
    ],
)
def test_tools_of_the_vendor_and_sources(api, event, pieces):
    assert told(api, [event])[0] == pieces


def test_code_that_gemini_runs_itself_is_a_call_that_nobody_is_to_answer():
    parts = [CODE, {"codeExecutionResult": {"output": "2"}}]
    event = {"candidates": [{"content": {"parts": parts}, "finishReason": "STOP"}]}
    code = json.dumps(CODE["executableCode"])

    pieces, finish = told("gemini", [event])

    assert pieces == [
        ("tool_call", code, {"index": "0", "name": "code_execution", "server": "1", "done": "1"}),
        ("tool_result", '{"output": "2"}', {"index": "0"}),
    ]
    assert finish == "stop"


def test_custom_tool_call_of_a_responses_stream_is_its_end():
    end = {"type": "response.completed", "response": {"output": [{"type": "custom_tool_call"}]}}

    assert told("openai.responses", [end])[1] == "tool_calls"


NOTE = {"type": "url_citation", "url": "u"}


@pytest.mark.parametrize(
    ("answer", "pieces"),
    [
        (
            {"choices": [{"message": {"content": "x", "annotations": [NOTE]}}]},
            [("content", "x", {"index": "0"}), ("citation", json.dumps(NOTE), {})],
        ),
        (
            {"choices": [{"message": {"refusal": "no"}}]},
            [("refusal", "no", {"index": "0"})],
        ),
        (
            {"choices": [{"message": {"content": [{"type": "reference", "reference_ids": [1]}]}}]},
            [("citation", '{"type": "reference", "reference_ids": [1]}', {})],
        ),
        (
            {
                "output": [
                    SEARCH,
                    {
                        "type": "message",
                        "content": [
                            {"type": "output_text", "text": "x", "annotations": [NOTE]},
                            {"type": "refusal", "refusal": "no"},
                        ],
                    },
                ]
            },
            [
                ("tool_result", json.dumps(SEARCH), {"id": "ws", "name": "web_search"}),
                ("content", "x", {"index": "1"}),
                ("citation", json.dumps(NOTE), {}),
                ("refusal", "no", {"index": "1"}),
            ],
        ),
        (
            {
                "content": [
                    {"type": "server_tool_use", "id": "t", "name": "web_search", "input": {}},
                    {"type": "web_search_tool_result", "tool_use_id": "t", "content": [1]},
                    {"type": "text", "text": "x", "citations": [NOTE]},
                ],
                "stop_reason": "refusal",
                "stop_details": {"category": "cyber"},
            },
            [
                (
                    "tool_call",
                    "",
                    {"index": "0", "id": "t", "name": "web_search", "done": "1", "server": "1"},
                ),
                ("tool_result", "[1]", {"id": "t"}),
                ("content", "x", {"index": "2"}),
                ("citation", json.dumps(NOTE), {"index": "2"}),
                ("refusal", "cyber", {}),
            ],
        ),
        (
            {
                "message": {
                    "tool_plan": "I will",
                    "content": [{"type": "text", "text": "x"}],
                    "citations": [NOTE],
                }
            },
            [
                ("reasoning", "I will", {"index": "0"}),
                ("content", "x", {"index": "0"}),
                ("citation", json.dumps(NOTE), {}),
            ],
        ),
        (
            {
                "output": {
                    "message": {
                        "content": [
                            {"citationsContent": {"content": [{"text": "x"}], "citations": [NOTE]}}
                        ]
                    }
                }
            },
            [("content", "x", {"index": "0"}), ("citation", json.dumps(NOTE), {"index": "0"})],
        ),
    ],
)
def test_whole_answers_have_sources_refusals_and_results_as_streams_do(answer, pieces):
    found = read_answer(answer)[0]

    assert [(str(piece.type), piece.content, dict(piece.fields)) for piece in found] == pieces
