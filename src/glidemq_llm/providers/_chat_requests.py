"""From the chat format to the requests of Anthropic and Gemini."""

from __future__ import annotations

import base64
import re
from collections.abc import Collection, Iterable
from typing import Any, Final

from glidemq_llm._chat_format import (
    Image,
    Own,
    Part,
    Text,
    ToolResult,
    ToolUse,
    read_chat,
    read_tool_choice,
    read_tools,
    take_limits,
)
from glidemq_llm._read import fields

Request = dict[str, Any]

_MAX_TOKENS: Final = (
    4096  # Anthropic wants a limit; it is what gets reserved, so it is not the largest possible
)
_ANTHROPIC_PARTS: Final = frozenset(
    """image document tool_use tool_result thinking redacted_thinking server_tool_use search_result
    web_search_tool_result container_upload""".split()
)
_GEMINI_PARTS: Final = frozenset(
    """inline_data inlineData file_data fileData function_call functionCall function_response functionResponse
    executable_code executableCode code_execution_result codeExecutionResult thought thought_signature thoughtSignature
    tool_call tool_response""".split()
)
# Google's own word for a call that no Gemini has made: Gemini 3 refuses calls without a signature.
_NO_SIGNATURE: Final = b"skip_thought_signature_validator"


def anthropic_request(model: str, messages: list[Any], params: Request) -> Request:
    """The arguments of `messages.create`.

    Raises:
        UnrecoverableError: There is a part that Anthropic has no counterpart for.
    """
    chat = read_chat(messages, own=_ANTHROPIC_PARTS)
    params = dict(params)
    limits = take_limits(params)
    request: Request = {"max_tokens": limits.pop("max_tokens", _MAX_TOKENS)}
    if "stop" in limits:
        request["stop_sequences"] = limits.pop("stop")
    if chat.system:
        request["system"] = chat.system
    functions, own = read_tools(params.pop("tools", None))
    if functions or own:
        request["tools"] = [
            *(
                {"name": tool.name, "description": tool.description, "input_schema": tool.schema}
                for tool in functions
            ),
            *own,
        ]
    choice = params.pop("tool_choice", None)
    if choice is not None:
        request["tool_choice"] = _anthropic_choice(choice)
    turns = [
        {"role": turn.role, "content": [_anthropic_part(part) for part in turn.parts]}
        for turn in chat.turns
    ]
    if fields(params.get("thinking")).get("type") == "enabled" and _began_without_thinking(turns):
        del params["thinking"]
    return {**request, **limits, **params, "model": model, "messages": turns}


def _began_without_thinking(turns: list[Request]) -> bool:
    """Are tools answered that were called without thinking, by another model? Anthropic refuses to think from there on."""
    said: list[Any] = turns[-2]["content"] if len(turns) > 1 and turns[-1]["role"] == "user" else []
    kinds = [fields(part).get("type") for part in said]
    return "tool_use" in kinds and kinds[0] not in ("thinking", "redacted_thinking")


def _anthropic_choice(choice: object) -> object:
    known = read_tool_choice(choice)
    if known is None:
        return choice
    kind, name = known
    if kind == "function":
        return {"type": "tool", "name": name}
    return {"type": "any" if kind == "required" else kind}


def _anthropic_part(part: Part) -> object:
    match part:
        case Text(written):
            return {"type": "text", "text": written}
        case Image(url=url) if url:
            return {"type": "image", "source": {"type": "url", "url": url}}
        case Image(media_type=media_type, data=data):
            source = {"type": "base64", "media_type": media_type, "data": data}
            return {"type": "image", "source": source}
        case ToolUse(call_id, name, arguments):
            return {"type": "tool_use", "id": call_id, "name": name, "input": dict(arguments)}
        case ToolResult(call_id, _, content):
            return {"type": "tool_result", "tool_use_id": call_id, "content": content}
        case Own(own):
            return own


def gemini_request(model: str, messages: list[Any], params: Request) -> Request:
    """The arguments of `generate_content`.

    Raises:
        UnrecoverableError: There is a part that Gemini has no counterpart for.
    """
    chat = read_chat(messages, own=_GEMINI_PARTS)
    params = dict(params)
    limits = take_limits(params)
    config: Request = dict(fields(params.pop("config", None)))
    renamed = {"max_tokens": "max_output_tokens", "stop": "stop_sequences"}
    config |= {renamed.get(name, name): value for name, value in limits.items()}
    if chat.system:
        config.setdefault("system_instruction", chat.system)
    functions, own = read_tools(params.pop("tools", None))
    if functions or own:
        declared = [
            {
                "name": tool.name,
                "description": tool.description,
                "parameters_json_schema": tool.schema,
            }
            for tool in functions
        ]
        config["tools"] = [*([{"function_declarations": declared}] if declared else []), *own]
    choice = read_tool_choice(params.pop("tool_choice", None))
    if choice is not None:
        config["tool_config"] = {"function_calling_config": _gemini_choice(*choice)}
    ids = _ids_given(part for turn in chat.turns for part in turn.parts)
    contents = [
        {
            "role": "model" if turn.role == "assistant" else "user",
            "parts": [_gemini_part(part, ids) for part in turn.parts],
        }
        for turn in chat.turns
    ]
    if _is_gemini_3(model):
        _mark_foreign_calls(contents)
    return {"model": model, "contents": contents, "config": config | params}


def _is_gemini_3(model: str) -> bool:
    version = re.search(r"gemini-(\d+)", model)
    return version is not None and int(version[1]) >= 3


def _mark_foreign_calls(contents: list[Request]) -> None:
    for content in contents:
        calls = [part for part in content["parts"] if "function_call" in part]
        if calls:  # of calls at one time only the first is signed
            calls[0].setdefault("thought_signature", _NO_SIGNATURE)


def _ids_given(parts: Iterable[Part]) -> set[object]:
    """The ids that Gemini gave to its calls itself; other ids mean nothing to it."""
    own = (fields(part.part.get("function_call")) for part in parts if isinstance(part, Own))
    return {call["id"] for call in own if call.get("id")}


def _gemini_choice(kind: str, name: str) -> Request:
    if kind == "function":
        return {"mode": "ANY", "allowed_function_names": [name]}
    return {"mode": {"auto": "AUTO", "none": "NONE", "required": "ANY"}[kind]}


def _gemini_part(part: Part, ids: Collection[object]) -> Request:
    match part:
        case Text(written):
            return {"text": written}
        case Image(url=url) if url:
            return {"file_data": {"file_uri": url}}
        case Image(media_type=media_type, data=data):
            return {"inline_data": {"mime_type": media_type, "data": base64.b64decode(data)}}
        case ToolUse(_, name, arguments):
            return {"function_call": {"name": name, "args": dict(arguments)}}
        case ToolResult(call_id, name, content):
            answer = {"name": name, "response": {"result": content}}
            return {"function_response": {"id": call_id, **answer} if call_id in ids else answer}
        case Own(own):
            found = dict(own)
            signature = own.get("thought_signature")
            if isinstance(signature, str):  # as JSON has it
                found["thought_signature"] = base64.urlsafe_b64decode(signature)
            return found
