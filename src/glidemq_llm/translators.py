"""From the events of a stream to pieces of the common vocabulary, one translator per API.

A translator belongs to one stream: it remembers which tool calls are open and why the answer ended. Events may be
the SDK's objects or decoded JSON. Events without content (pings, headers, block borders) give no pieces; they are
signs of life all the same.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Protocol

from glidemq_llm._read import fields, items, plain, text
from glidemq_llm.chunks import ChunkType, Finish, FinishReason, Piece, finish_reason

_NOTHING: list[Piece] = []
_INDEX = tuple({"index": str(number)} for number in range(16))


class Translator(Protocol):
    """Turns the events of one stream into pieces.

    Attributes:
        finish: Why the answer ended; None while no terminal marker has been seen. A stream that ends while this is
            None was cut.
    """

    finish: Finish | None

    def translate(self, event: object) -> list[Piece]:
        """The pieces of one event, in order; usually none or one."""
        ...

    def is_terminal(self, event: object) -> bool:
        """Whether the event says that the answer is complete (usage may still follow)."""
        ...


def translator(api: str) -> Translator:
    """A new translator for a stream.

    Args:
        api: "openai.chat" (and all that speak its dialect, Mistral included), "openai.responses",
            "anthropic.messages", "gemini", "cohere", "ollama" or "bedrock".

    Raises:
        KeyError: There is no such API here.
    """
    return _TRANSLATORS[api]()


class _Base:
    """What all translators share."""

    def __init__(self) -> None:
        self.finish: Finish | None = None
        self._open_tools: dict[str, str] = {}

    def is_terminal(self, event: object) -> bool:
        return self._finish_of(fields(event)) is not None

    def _finish_of(self, event: Mapping[str, Any]) -> Finish | None:
        raise NotImplementedError

    def _note_finish(self, event: Mapping[str, Any]) -> None:
        found = self._finish_of(event)
        if found is not None and (self.finish is None or found.reason is not FinishReason.UNKNOWN):
            self.finish = found

    def _close_tools(self) -> list[Piece]:
        closed = [_tool_done(index, call_id) for index, call_id in self._open_tools.items()]
        self._open_tools.clear()
        return closed

    def _open_tool(self, index: str, call_id: str, name: str, arguments: str = "") -> Piece:
        self._open_tools[index] = call_id
        return _tool(arguments, index=index, id=call_id, name=name)

    def _more_tool(self, index: str, arguments: str) -> Piece:
        return _tool(arguments, index=index, id=self._open_tools.get(index, ""))


def _tool(arguments: str, **named: str) -> Piece:
    return Piece(
        ChunkType.TOOL_CALL, arguments, {name: value for name, value in named.items() if value}
    )


def _tool_done(index: str, call_id: str) -> Piece:
    return _tool("", index=index, id=call_id, done="1")


def _encoded(value: object) -> str:
    return (
        value
        if isinstance(value, str)
        else json.dumps(plain(value), ensure_ascii=False, default=str)
    )


def _at(index: object) -> Mapping[str, str]:
    return (
        _INDEX[index]
        if isinstance(index, int) and 0 <= index < len(_INDEX)
        else {"index": str(index or 0)}
    )


def _error(error: object) -> Piece:
    body = fields(error)
    message = text(body.get("message")) or text(error) or _encoded(error)
    code = body.get("code") or body.get("type")
    return Piece(ChunkType.ERROR, message, {"code": str(code)} if code else {})


class ChatTranslator(_Base):
    """OpenAI chat completions and the many that speak it: Azure, Groq, DeepSeek, Mistral, OpenRouter, vLLM, ..."""

    def translate(self, event: object) -> list[Piece]:
        """The pieces of a chunk; the delta of an ordinary token takes the short way."""
        chunk = fields(event)
        choices = chunk.get("choices")
        if not choices:
            return self._without_choices(chunk)
        pieces: list[Piece] = []
        for choice in choices:
            one = fields(choice)
            delta = fields(one.get("delta"))
            content = delta.get("content")
            if content.__class__ is str and content:
                pieces.append(Piece("content", content, _at(one.get("index"))))
            elif content:
                pieces += _content_parts(content, _at(one.get("index")))
            # Two lookups tell most deltas from those with anything else in them.
            if len(delta) > 1 or not content:
                pieces += self._rest(one, delta)
            if one.get("finish_reason"):
                self._note_finish(chunk)
                pieces += self._close_tools()
        return pieces

    def _without_choices(self, chunk: Mapping[str, Any]) -> list[Piece]:
        if "data" in chunk and "choices" not in chunk:  # the Mistral SDK's envelope
            return self.translate(chunk["data"])
        if chunk.get("error"):
            self.finish = Finish(FinishReason.ERROR, "error")
            return [_error(chunk["error"])]
        return _NOTHING

    def _rest(self, choice: Mapping[str, Any], delta: Mapping[str, Any]) -> list[Piece]:
        pieces: list[Piece] = []
        reasoning = delta.get("reasoning_content") or delta.get("reasoning")
        if isinstance(reasoning, str):
            pieces.append(Piece(ChunkType.REASONING, reasoning, _at(choice.get("index"))))
        if delta.get("refusal"):
            pieces.append(Piece(ChunkType.REFUSAL, str(delta["refusal"])))
        legacy = choice.get("text")
        if isinstance(legacy, str) and legacy:  # the old completions API has no delta
            pieces.append(Piece(ChunkType.CONTENT, legacy, _at(choice.get("index"))))
        for call in items(delta.get("tool_calls")):
            pieces.append(self._tool_call(fields(call)))
        for note in items(delta.get("annotations")):
            pieces.append(Piece(ChunkType.CITATION, _encoded(note)))
        if choice.get("error"):
            pieces.append(_error(choice["error"]))
        return pieces

    def _tool_call(self, call: Mapping[str, Any]) -> Piece:
        function = fields(call.get("function"))
        index = str(call.get("index") or 0)
        call_id = text(call.get("id")) or ""
        if call_id == "null":  # seen at Mistral
            call_id = ""
        name = text(function.get("name"))
        arguments = function.get("arguments") or ""
        if name:
            return self._open_tool(index, call_id, name, _encoded(arguments) if arguments else "")
        return self._more_tool(index, _encoded(arguments) if arguments else "")

    def _finish_of(self, event: Mapping[str, Any]) -> Finish | None:
        for choice in items(event.get("choices")):
            raw = text(fields(choice).get("finish_reason"))
            if raw:
                return Finish(finish_reason(raw), raw)
        data = event.get("data")
        return (
            self._finish_of(fields(data)) if data is not None and "choices" not in event else None
        )


def _content_parts(content: object, at: Mapping[str, str]) -> list[Piece]:
    """Mistral's deltas may be lists of parts, of which some are thinking."""
    pieces: list[Piece] = []
    for part in map(fields, items(content)):
        thinking = part.get("thinking")
        if isinstance(thinking, str):
            pieces.append(Piece(ChunkType.REASONING, thinking, at))
        for inner in map(fields, items(thinking)):
            if inner.get("text"):
                pieces.append(Piece(ChunkType.REASONING, str(inner["text"]), at))
        if part.get("text"):
            pieces.append(Piece(ChunkType.CONTENT, str(part["text"]), at))
        elif part.get("type") == "reference":
            pieces.append(Piece(ChunkType.CITATION, _encoded(part)))
    return pieces


class ResponsesTranslator(_Base):
    """The OpenAI Responses API."""

    def translate(self, event: object) -> list[Piece]:
        """The pieces of an event."""
        e = fields(event)
        kind = e.get("type")
        at = _at(e.get("output_index"))
        index = at["index"]
        match kind:
            case "response.output_text.delta":
                return [Piece("content", e.get("delta") or "", at)]
            case "response.reasoning_text.delta":
                return [Piece("reasoning", e.get("delta") or "", {**at, "kind": "text"})]
            case "response.reasoning_summary_text.delta":
                return [Piece("reasoning", e.get("delta") or "", {**at, "kind": "summary"})]
            case "response.refusal.delta":
                return [Piece("refusal", e.get("delta") or "", at)]
            case "response.function_call_arguments.delta" | "response.custom_tool_call_input.delta":
                return [self._more_tool(index, e.get("delta") or "")]
            case "response.output_item.added":
                return self._item(index, fields(e.get("item")))
            case "response.function_call_arguments.done" | "response.custom_tool_call_input.done":
                return [_tool_done(index, self._open_tools.pop(index, ""))]
            case "response.output_text.annotation.added":
                return [Piece(ChunkType.CITATION, _encoded(e.get("annotation")))]
            case (
                "error"
                | "response.completed"
                | "response.incomplete"
                | "response.failed"
                | "response.cancelled"
            ):
                return self._end(e)
            case _:
                return _NOTHING

    def _item(self, index: str, item: Mapping[str, Any]) -> list[Piece]:
        if item.get("type") not in ("function_call", "custom_tool_call"):
            return _NOTHING
        return [
            self._open_tool(index, text(item.get("call_id")) or "", text(item.get("name")) or "")
        ]

    def _end(self, event: Mapping[str, Any]) -> list[Piece]:
        self._note_finish(event)
        if event.get("type") == "error":
            return [_error(event.get("error") or event)]
        failure = fields(event.get("response")).get("error")
        return [_error(failure)] if failure else _NOTHING

    def _finish_of(self, event: Mapping[str, Any]) -> Finish | None:
        response = fields(event.get("response"))
        match event.get("type"):
            case "response.completed":
                calls = any(
                    fields(item).get("type") == "function_call"
                    for item in items(response.get("output"))
                )
                return Finish(FinishReason.TOOL_CALLS if calls else FinishReason.STOP, "completed")
            case "response.incomplete":
                raw = text(fields(response.get("incomplete_details")).get("reason")) or "incomplete"
                return Finish(finish_reason(raw), raw)
            case "response.failed" | "error":
                return Finish(FinishReason.ERROR, "failed")
            case "response.cancelled":
                return Finish(FinishReason.CANCELLED, "cancelled")
            case _:
                return None


class AnthropicTranslator(_Base):
    """Anthropic messages; Bedrock's and Vertex' Anthropic models included."""

    def translate(self, event: object) -> list[Piece]:
        """The pieces of an event."""
        e = fields(event)
        match e.get("type"):
            case "content_block_delta":
                return self._delta(fields(e.get("delta")), _at(e.get("index")))
            case "content_block_start":
                return self._block(fields(e.get("content_block")), _at(e.get("index")))
            case "content_block_stop":
                index = _at(e.get("index"))["index"]
                if index in self._open_tools:
                    return [_tool_done(index, self._open_tools.pop(index))]
                return _NOTHING
            case "message_delta" | "message_stop":
                self._note_finish(e)
                return self._refusal(e)
            case "error":
                self._note_finish(e)
                return [_error(e.get("error"))]
            case _:
                return _NOTHING

    def _delta(self, delta: Mapping[str, Any], at: Mapping[str, str]) -> list[Piece]:
        match delta.get("type"):
            case "text_delta":
                return [Piece("content", delta.get("text") or "", at)]
            case "thinking_delta":
                return [Piece("reasoning", delta.get("thinking") or "", at)]
            case "input_json_delta":
                arguments = delta.get("partial_json") or ""
                return [self._more_tool(at["index"], arguments)] if arguments else _NOTHING
            case "citations_delta":
                return [Piece(ChunkType.CITATION, _encoded(delta.get("citation")), at)]
            case _:
                return _NOTHING

    def _block(self, block: Mapping[str, Any], at: Mapping[str, str]) -> list[Piece]:
        kind = str(block.get("type"))
        if kind in ("tool_use", "server_tool_use", "mcp_tool_use"):
            call_id, name = text(block.get("id")) or "", text(block.get("name")) or ""
            return [self._open_tool(at["index"], call_id, name)]
        if kind.endswith("_tool_result"):
            call_id = text(block.get("tool_use_id")) or ""
            return [Piece(ChunkType.TOOL_RESULT, _encoded(block.get("content")), {"id": call_id})]
        if kind == "text" and block.get("text"):
            return [Piece(ChunkType.CONTENT, str(block["text"]), at)]
        return _NOTHING

    def _refusal(self, event: Mapping[str, Any]) -> list[Piece]:
        delta = fields(event.get("delta"))
        if delta.get("stop_reason") != "refusal":
            return _NOTHING
        details = fields(delta.get("stop_details"))
        return [
            Piece(
                ChunkType.REFUSAL,
                text(details.get("explanation")) or text(details.get("category")) or "",
            )
        ]

    def _finish_of(self, event: Mapping[str, Any]) -> Finish | None:
        match event.get("type"):
            case "message_delta":
                raw = text(fields(event.get("delta")).get("stop_reason"))
                return Finish(finish_reason(raw), raw) if raw else None
            case "message_stop":
                return Finish(FinishReason.UNKNOWN, "message_stop")
            case "error":
                return Finish(FinishReason.ERROR, "error")
            case _:
                return None


class GeminiTranslator(_Base):
    """Gemini and Vertex `generateContent`; the SDK's snake case and the wire's camel case."""

    def translate(self, event: object) -> list[Piece]:
        """The pieces of a chunk; function calls come whole."""
        e = fields(event)
        pieces: list[Piece] = []
        for candidate in map(fields, items(e.get("candidates"))):
            at = _at(candidate.get("index"))
            for part in items(fields(candidate.get("content")).get("parts")):
                pieces += self._part(fields(part), at)
            grounding = candidate.get("groundingMetadata") or candidate.get("grounding_metadata")
            if grounding:
                pieces.append(Piece(ChunkType.CITATION, _encoded(grounding)))
        blocked = _block_reason(e)
        if blocked:
            pieces.append(Piece(ChunkType.REFUSAL, blocked))
        if e.get("error"):
            pieces.append(_error(e["error"]))
        self._note_finish(e)
        return pieces

    def _part(self, part: Mapping[str, Any], at: Mapping[str, str]) -> list[Piece]:
        written = part.get("text")
        if isinstance(written, str) and written:
            return [Piece("reasoning" if part.get("thought") else "content", written, at)]
        call = fields(part.get("functionCall") or part.get("function_call"))
        if call:
            index = str(len(self._open_tools))
            self._open_tools[index] = ""
            name, call_id = text(call.get("name")) or "", text(call.get("id")) or ""
            return [
                _tool(
                    _encoded(call.get("args") or {}), index=index, id=call_id, name=name, done="1"
                )
            ]
        result = part.get("codeExecutionResult") or part.get("code_execution_result")
        return [Piece(ChunkType.TOOL_RESULT, _encoded(result), at)] if result else _NOTHING

    def _finish_of(self, event: Mapping[str, Any]) -> Finish | None:
        for candidate in map(fields, items(event.get("candidates"))):
            raw = text(candidate.get("finishReason") or candidate.get("finish_reason"))
            if raw and raw != "FINISH_REASON_UNSPECIFIED":
                reason = finish_reason(raw)
                if reason is FinishReason.STOP and self._open_tools:
                    reason = FinishReason.TOOL_CALLS  # Gemini says STOP after function calls too
                return Finish(reason, raw)
        blocked = _block_reason(event)
        if blocked:
            return Finish(FinishReason.CONTENT_FILTER, blocked)
        return Finish(FinishReason.ERROR, "error") if event.get("error") else None


def _block_reason(event: Mapping[str, Any]) -> str | None:
    feedback = fields(event.get("promptFeedback") or event.get("prompt_feedback"))
    return text(feedback.get("blockReason") or feedback.get("block_reason"))


class CohereTranslator(_Base):
    """Cohere chat, version 2."""

    def translate(self, event: object) -> list[Piece]:
        """The pieces of an event."""
        e = fields(event)
        at = _at(e.get("index"))
        message = fields(fields(e.get("delta")).get("message"))
        match e.get("type"):
            case "content-delta" | "content-start":
                return _cohere_content(fields(message.get("content")), at)
            case "tool-plan-delta":
                return [Piece(ChunkType.REASONING, str(message.get("tool_plan") or ""), at)]
            case "tool-call-start":
                call = fields(message.get("tool_calls"))
                function = fields(call.get("function"))
                call_id, name = text(call.get("id")) or "", text(function.get("name")) or ""
                return [
                    self._open_tool(
                        at["index"], call_id, name, text(function.get("arguments")) or ""
                    )
                ]
            case "tool-call-delta":
                function = fields(fields(message.get("tool_calls")).get("function"))
                return [self._more_tool(at["index"], text(function.get("arguments")) or "")]
            case "tool-call-end":
                return [_tool_done(at["index"], self._open_tools.pop(at["index"], ""))]
            case "citation-start":
                return [Piece(ChunkType.CITATION, _encoded(message.get("citations")))]
            case "message-end":
                self._note_finish(e)
                failure = fields(e.get("delta")).get("error")
                return [_error(failure)] if failure else _NOTHING
            case _:
                return _NOTHING

    def _finish_of(self, event: Mapping[str, Any]) -> Finish | None:
        if event.get("type") != "message-end":
            return None
        raw = text(fields(event.get("delta")).get("finish_reason")) or "complete"
        return Finish(finish_reason(raw), raw)


def _cohere_content(content: Mapping[str, Any], at: Mapping[str, str]) -> list[Piece]:
    pieces: list[Piece] = []
    if content.get("thinking"):
        pieces.append(Piece(ChunkType.REASONING, str(content["thinking"]), at))
    if content.get("text"):
        pieces.append(Piece(ChunkType.CONTENT, str(content["text"]), at))
    return pieces


class OllamaTranslator(_Base):
    """Ollama's own API, `/api/chat` and `/api/generate`."""

    def translate(self, event: object) -> list[Piece]:
        """The pieces of a line; tool calls come whole."""
        e = fields(event)
        message = fields(e.get("message"))
        pieces: list[Piece] = []
        thinking = message.get("thinking") or e.get("thinking")
        if thinking:
            pieces.append(Piece(ChunkType.REASONING, str(thinking), _INDEX[0]))
        written = message.get("content") or e.get("response")
        if isinstance(written, str) and written:
            pieces.append(Piece(ChunkType.CONTENT, written, _INDEX[0]))
        for call in map(fields, items(message.get("tool_calls"))):
            function = fields(call.get("function"))
            index = str(len(self._open_tools))
            self._open_tools[index] = ""
            arguments = _encoded(function.get("arguments") or {})
            pieces.append(
                _tool(arguments, index=index, name=text(function.get("name")) or "", done="1")
            )
        if e.get("error"):
            pieces.append(_error(e["error"]))
        self._note_finish(e)
        return pieces

    def _finish_of(self, event: Mapping[str, Any]) -> Finish | None:
        if event.get("error"):
            return Finish(FinishReason.ERROR, "error")
        if event.get("done") is not True:
            return None
        raw = text(event.get("done_reason")) or "stop"
        reason = finish_reason(raw)
        if reason is FinishReason.STOP and self._open_tools:
            reason = FinishReason.TOOL_CALLS
        return Finish(reason, raw)


class BedrockTranslator(_Base):
    """Bedrock `converse_stream`."""

    def translate(self, event: object) -> list[Piece]:
        """The pieces of an event."""
        e = fields(event)
        if "contentBlockDelta" in e:
            block = fields(e["contentBlockDelta"])
            return self._delta(fields(block.get("delta")), _at(block.get("contentBlockIndex")))
        if "contentBlockStart" in e:
            block = fields(e["contentBlockStart"])
            tool = fields(fields(block.get("start")).get("toolUse"))
            index = _at(block.get("contentBlockIndex"))["index"]
            call_id, name = text(tool.get("toolUseId")) or "", text(tool.get("name")) or ""
            return [self._open_tool(index, call_id, name)] if tool else _NOTHING
        if "contentBlockStop" in e:
            index = _at(fields(e["contentBlockStop"]).get("contentBlockIndex"))["index"]
            if index in self._open_tools:
                return [_tool_done(index, self._open_tools.pop(index))]
            return _NOTHING
        self._note_finish(e)
        failure = next((name for name in e if name.endswith("Exception")), None)
        return [_error({"code": failure, **fields(e[failure])})] if failure else _NOTHING

    def _delta(self, delta: Mapping[str, Any], at: Mapping[str, str]) -> list[Piece]:
        if delta.get("text"):
            return [Piece("content", str(delta["text"]), at)]
        reasoning = fields(delta.get("reasoningContent"))
        if reasoning.get("text"):
            return [Piece("reasoning", str(reasoning["text"]), at)]
        tool = fields(delta.get("toolUse"))
        if tool:
            return [self._more_tool(at["index"], text(tool.get("input")) or "")]
        citation = delta.get("citation")
        return [Piece(ChunkType.CITATION, _encoded(citation), at)] if citation else _NOTHING

    def _finish_of(self, event: Mapping[str, Any]) -> Finish | None:
        if "messageStop" in event:
            raw = text(fields(event["messageStop"]).get("stopReason")) or "end_turn"
            return Finish(finish_reason(raw), raw)
        failed = any(name.endswith("Exception") for name in event)
        return Finish(FinishReason.ERROR, "exception") if failed else None


_TRANSLATORS: dict[str, type[Translator]] = {
    "openai.chat": ChatTranslator,
    "openai.responses": ResponsesTranslator,
    "anthropic.messages": AnthropicTranslator,
    "gemini": GeminiTranslator,
    "cohere": CohereTranslator,
    "ollama": OllamaTranslator,
    "bedrock": BedrockTranslator,
}
