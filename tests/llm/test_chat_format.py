"""Messages in the chat format, turned into the requests of vendors that have another one."""

from __future__ import annotations

import base64

import pytest

from glidemq_core.errors import UnrecoverableError
from glidemq_llm.providers._chat_requests import anthropic_request, gemini_request

PNG = base64.b64encode(b"png").decode()
WEATHER = {"type": "object", "properties": {"at": {"type": "string"}}}
PARAMS = {
    "max_completion_tokens": 50,
    "temperature": 0.5,
    "top_p": 0.9,
    "stop": "END",
    "tools": [
        {
            "type": "function",
            "function": {"name": "weather", "description": "How it is", "parameters": WEATHER},
        }
    ],
    "tool_choice": "required",
}
CHAT = [
    {"role": "system", "content": "be brief"},
    {"role": "developer", "content": [{"type": "text", "text": "and kind"}]},
    {
        "role": "user",
        "content": [
            {"type": "text", "text": "what is this?"},
            {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}},
        ],
    },
    {
        "role": "assistant",
        "content": "Let me see.",
        "tool_calls": [
            {"id": "c1", "function": {"name": "weather", "arguments": '{"at": "Oslo"}'}}
        ],
    },
    {"role": "tool", "tool_call_id": "c1", "content": "rain"},
    {"role": "user", "content": "and now?"},
]


def test_anthropic():
    assert anthropic_request("claude", CHAT, PARAMS) == {
        "model": "claude",
        "max_tokens": 50,
        "temperature": 0.5,
        "top_p": 0.9,
        "stop_sequences": ["END"],
        "system": "be brief\n\nand kind",
        "tools": [{"name": "weather", "description": "How it is", "input_schema": WEATHER}],
        "tool_choice": {"type": "any"},
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "what is this?"},
                    {
                        "type": "image",
                        "source": {"type": "base64", "media_type": "image/png", "data": PNG},
                    },
                ],
            },
            {
                "role": "assistant",
                "content": [
                    {"type": "text", "text": "Let me see."},
                    {"type": "tool_use", "id": "c1", "name": "weather", "input": {"at": "Oslo"}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "c1", "content": "rain"},
                    {"type": "text", "text": "and now?"},
                ],
            },
        ],
    }


def test_gemini():
    assert gemini_request("gemini", CHAT, PARAMS) == {
        "model": "gemini",
        "config": {
            "max_output_tokens": 50,
            "temperature": 0.5,
            "top_p": 0.9,
            "stop_sequences": ["END"],
            "system_instruction": "be brief\n\nand kind",
            "tools": [
                {
                    "function_declarations": [
                        {
                            "name": "weather",
                            "description": "How it is",
                            "parameters_json_schema": WEATHER,
                        }
                    ]
                }
            ],
            "tool_config": {"function_calling_config": {"mode": "ANY"}},
        },
        "contents": [
            {
                "role": "user",
                "parts": [
                    {"text": "what is this?"},
                    {"inline_data": {"mime_type": "image/png", "data": b"png"}},
                ],
            },
            {
                "role": "model",
                "parts": [
                    {"text": "Let me see."},
                    {"function_call": {"name": "weather", "args": {"at": "Oslo"}}},
                ],
            },
            {
                "role": "user",
                "parts": [
                    {"function_response": {"name": "weather", "response": {"result": "rain"}}},
                    {"text": "and now?"},
                ],
            },
        ],
    }


def test_gemini_request_is_one_the_sdk_takes():
    types = pytest.importorskip("google.genai.types")
    request = gemini_request("gemini", CHAT, PARAMS)

    types.GenerateContentConfig.model_validate(request["config"])
    contents = [types.Content.model_validate(content) for content in request["contents"]]

    assert contents[2].parts[0].function_response.name == "weather"


SIGNED = [
    {"role": "user", "content": "add them"},
    {
        "role": "assistant",
        "content": [
            {"text": "Hm", "thought": True},
            {
                "function_call": {"id": "own", "name": "add", "args": {}},
                "thought_signature": "-_8=",
            },
        ],
        "tool_calls": [{"id": "own", "function": {"name": "add", "arguments": "{}"}}],
    },
    {"role": "tool", "tool_call_id": "own", "content": "3"},
    {
        "role": "assistant",
        "content": "",
        "tool_calls": [
            {"id": "c1", "function": {"name": "add", "arguments": "{}"}},
            {"id": "c2", "function": {"name": "add", "arguments": "{}"}},
        ],
    },
    {"role": "tool", "tool_call_id": "c1", "content": "4"},
    {"role": "tool", "tool_call_id": "c2", "content": "5"},
]


def test_gemini_has_its_own_calls_back_as_they_were_and_answers_under_its_ids():
    contents = gemini_request("gemini-2.5-pro", SIGNED, {})["contents"]

    own = {"function_call": {"id": "own", "name": "add", "args": {}}}
    assert contents[1]["parts"] == [
        {"text": "Hm", "thought": True},
        {**own, "thought_signature": b"\xfb\xff"},
    ]
    answer = {"id": "own", "name": "add", "response": {"result": "3"}}
    assert contents[2]["parts"] == [{"function_response": answer}]
    foreign = {"function_call": {"name": "add", "args": {}}}
    assert contents[3]["parts"] == [foreign, foreign]


@pytest.mark.parametrize("model", ["gemini-3-pro", "models/gemini-4-flash"])
def test_gemini_is_told_which_calls_no_gemini_has_made(model):
    contents = gemini_request(model, SIGNED, {})["contents"]

    assert contents[1]["parts"][1]["thought_signature"] == b"\xfb\xff"
    first, second = contents[3]["parts"]
    assert first["thought_signature"] == b"skip_thought_signature_validator"
    assert "thought_signature" not in second


@pytest.mark.parametrize(
    ("said", "kind", "thinks"),
    [
        ([{"type": "tool_use", "id": "c", "name": "add", "input": {}}], "enabled", False),
        ([{"type": "tool_use", "id": "c", "name": "add", "input": {}}], "adaptive", True),
        (
            [
                {"type": "redacted_thinking", "data": "x"},
                {"type": "tool_use", "id": "c", "name": "add", "input": {}},
            ],
            "enabled",
            True,
        ),
        ([{"type": "text", "text": "three"}], "enabled", True),
    ],
)
def test_claude_does_not_think_on_where_another_model_has_called(said, kind, thinks):
    messages = [
        {"role": "user", "content": "add them"},
        {"role": "assistant", "content": said},
        {"role": "user", "content": "go on"},
    ]

    request = anthropic_request("claude", messages, {"thinking": {"type": kind}})

    assert ("thinking" in request) is thinks


def test_ollama_has_the_arguments_of_calls_as_objects():
    ollama = pytest.importorskip("ollama")
    from glidemq_llm.providers.ollama import chat_request

    request = chat_request("llama", CHAT[3:], {})

    said = [ollama.Message.model_validate(message) for message in request["messages"]]
    (call,) = said[0].tool_calls
    assert (call.function.name, call.function.arguments) == ("weather", {"at": "Oslo"})


def test_vendors_own_messages_are_left_alone():
    thinking = {"type": "thinking", "thinking": "hmm", "signature": "s"}
    marked = {"type": "text", "text": "long", "cache_control": {"type": "ephemeral"}}
    chat = [
        {"role": "user", "content": [marked]},
        {"role": "assistant", "content": [thinking, {"type": "text", "text": "hi"}]},
    ]

    request = anthropic_request("claude", chat, {"max_tokens": 5, "thinking": {"type": "adaptive"}})

    assert request["messages"][0]["content"] == [marked]
    assert request["messages"][1]["content"][0] == thinking
    assert request["thinking"] == {"type": "adaptive"}


@pytest.mark.parametrize(
    "part",
    [
        {"type": "input_audio", "input_audio": {"data": "", "format": "wav"}},
        {"type": "file", "file": {"file_id": "f"}},
        {"type": "image_url", "image_url": {"url": "data:image/svg+xml;utf8,<svg/>"}},
    ],
)
@pytest.mark.parametrize("make", [anthropic_request, gemini_request])
def test_part_without_a_counterpart_is_refused_with_a_way_out(make, part):
    with pytest.raises(UnrecoverableError, match="convert="):
        make("m", [{"role": "user", "content": [part]}], {})


@pytest.mark.parametrize(
    ("choice", "anthropic", "gemini"),
    [
        ("auto", {"type": "auto"}, {"mode": "AUTO"}),
        ("none", {"type": "none"}, {"mode": "NONE"}),
        (
            {"type": "function", "function": {"name": "weather"}},
            {"type": "tool", "name": "weather"},
            {"mode": "ANY", "allowed_function_names": ["weather"]},
        ),
    ],
)
def test_tool_choice(choice, anthropic, gemini):
    params = {"tools": PARAMS["tools"], "tool_choice": choice}

    assert anthropic_request("m", CHAT, params)["tool_choice"] == anthropic
    config = gemini_request("m", CHAT, params)["config"]
    assert config["tool_config"]["function_calling_config"] == gemini


def test_given_params_are_not_changed():
    params = dict(PARAMS)

    for make in (anthropic_request, gemini_request):
        make("m", CHAT, params)

    assert params == PARAMS


def test_image_by_its_address():
    part = {"type": "image_url", "image_url": {"url": "https://x.test/a.png"}}

    request = anthropic_request("m", [{"role": "user", "content": [part]}], {})

    source = request["messages"][0]["content"][0]["source"]
    assert source == {"type": "url", "url": "https://x.test/a.png"}


def test_broken_arguments_of_a_tool_call_are_refused():
    call = {"id": "c", "function": {"name": "f", "arguments": "{not json"}}

    with pytest.raises(UnrecoverableError, match="no JSON"):
        anthropic_request("m", [{"role": "assistant", "tool_calls": [call]}], {})
