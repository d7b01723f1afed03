"""The streams of OpenAI's two APIs, and of everybody who speaks them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from glidemq_llm._read import fields, items, text
from glidemq_llm._translate import (
    NOTHING,
    Base,
    at_index,
    encoded,
    error_piece,
    image_piece,
    sources,
    tool_done,
)
from glidemq_llm.chunks import ChunkType, Finish, FinishReason, Piece, finish_reason


class ChatTranslator(Base):
    """OpenAI chat completions and the many that speak it: Azure, Groq, DeepSeek, Mistral,
    OpenRouter, vLLM, ...
    """

    def translate(self, event: object) -> list[Piece]:
        """The pieces of a chunk; the delta of an ordinary token takes the short way."""
        chunk = fields(event)
        choices = chunk.get("choices")
        if not choices or not isinstance(choices, list):
            return self._without_choices(chunk)
        pieces: list[Piece] = []
        for choice in cast("list[object]", choices):
            one = fields(choice)
            delta = fields(one.get("delta"))
            content = delta.get("content")
            if content.__class__ is str and content:
                pieces.append(Piece("content", content, at_index(one.get("index"))))
            elif content:
                pieces += _content_parts(content, at_index(one.get("index")))
            if not content or any(map(delta.get, _REST)):
                pieces += self._rest(one, delta)
            if one.get("finish_reason"):
                self.note_finish(chunk)
                pieces += self.close_tools() + sources(chunk)
                if chunk.get("error"):  # OpenRouter says both
                    pieces.append(error_piece(chunk["error"]))
        return pieces

    def _without_choices(self, chunk: Mapping[str, Any]) -> list[Piece]:
        if "data" in chunk and "choices" not in chunk:  # the Mistral SDK's envelope
            return self.translate(chunk["data"])
        if chunk.get("error"):
            self.finish = Finish(FinishReason.ERROR, "error")
            return [error_piece(chunk["error"])]
        return NOTHING

    def _rest(self, choice: Mapping[str, Any], delta: Mapping[str, Any]) -> list[Piece]:
        pieces: list[Piece] = []
        pieces += thoughts(delta, at_index(choice.get("index")))
        if delta.get("refusal"):
            pieces.append(Piece(ChunkType.REFUSAL, str(delta["refusal"])))
        legacy = choice.get("text")
        if isinstance(legacy, str) and legacy:  # the old completions API has no delta
            pieces.append(Piece(ChunkType.CONTENT, legacy, at_index(choice.get("index"))))
        pieces += [self._tool_call(fields(call)) for call in items(delta.get("tool_calls"))]
        if delta.get("function_call"):  # the form before tool calls
            pieces.append(self._tool_call({"function": delta["function_call"]}))
        notes = items(delta.get("annotations"))
        pieces += [Piece(ChunkType.CITATION, encoded(note)) for note in notes]
        pieces += beside_text(delta)
        if choice.get("error"):
            pieces.append(error_piece(choice["error"]))
        return pieces

    def _tool_call(self, call: Mapping[str, Any]) -> Piece:
        function = fields(call.get("function"))
        index = at_index(call.get("index"))["index"]
        call_id = text(call.get("id")) or ""
        if call_id == "null":  # seen at Mistral
            call_id = ""
        name = text(function.get("name"))
        arguments = function.get("arguments") or ""
        if name:
            return self.open_tool(index, call_id, name, encoded(arguments) if arguments else "")
        return self.more_tool(index, encoded(arguments) if arguments else "")

    def finish_of(self, event: Mapping[str, Any]) -> Finish | None:
        for choice in items(event.get("choices")):
            raw = text(fields(choice).get("finish_reason"))
            if raw:
                return Finish(finish_reason(raw), raw)
        data = event.get("data")
        return self.finish_of(fields(data)) if data is not None and "choices" not in event else None


# What a delta may hold beside its text. The SDK's objects have all fields, most of them None.
_REST = (
    "reasoning_content",
    "reasoning",
    "reasoning_details",
    "refusal",
    "tool_calls",
    "function_call",
    "annotations",
    "executed_tools",
    "images",
)


def thoughts(said: Mapping[str, Any], at: Mapping[str, str]) -> list[Piece]:
    """The reasoning of a delta or message. OpenRouter tells it twice, or in its details alone, of which some are encrypted."""
    reasoning = said.get("reasoning_content") or said.get("reasoning")
    if isinstance(reasoning, str) and reasoning:
        return [Piece(ChunkType.REASONING, reasoning, at)]
    pieces: list[Piece] = []
    for detail in map(fields, items(said.get("reasoning_details"))):
        clear, summary = detail.get("text"), detail.get("summary")
        if isinstance(clear, str) and clear:
            pieces.append(Piece(ChunkType.REASONING, clear, at))
        elif isinstance(summary, str) and summary:
            pieces.append(Piece(ChunkType.REASONING, summary, {**at, "kind": "summary"}))
    return pieces


def beside_text(said: Mapping[str, Any]) -> list[Piece]:
    """Of a delta or message: what Groq's own tools have found, and OpenRouter's images."""
    pieces: list[Piece] = []
    for tool in map(fields, items(said.get("executed_tools"))):
        if tool.get("output") is not None:  # it is told before it has run as well
            named = {"index": at_index(tool.get("index"))["index"], "name": text(tool.get("type"))}
            pieces.append(Piece(ChunkType.TOOL_RESULT, encoded(tool), _known(named)))
    for number, image in enumerate(map(fields, items(said.get("images")))):
        address = fields(image.get("image_url")).get("url")
        pieces.append(image_piece(address, None, **at_index(image.get("index", number))))
    return pieces


def _known(named: Mapping[str, str | None]) -> dict[str, str]:
    return {name: value for name, value in named.items() if value}


def _content_parts(content: object, at: Mapping[str, str]) -> list[Piece]:
    """Mistral's deltas may be lists of parts, of which some are thinking."""
    pieces: list[Piece] = []
    for part in map(fields, items(content)):
        thinking = part.get("thinking")
        if isinstance(thinking, str):
            pieces.append(Piece(ChunkType.REASONING, thinking, at))
        thoughts = [text(fields(inner).get("text")) for inner in items(thinking)]
        pieces += [Piece(ChunkType.REASONING, thought, at) for thought in thoughts if thought]
        if part.get("text"):
            pieces.append(Piece(ChunkType.CONTENT, str(part["text"]), at))
        elif part.get("type") == "reference":
            pieces.append(Piece(ChunkType.CITATION, encoded(part)))
    return pieces


CALLS = ("function_call", "custom_tool_call")
_SERVER_TOOLS = (
    "image_generation_call",
    "web_search_call",
    "file_search_call",
    "code_interpreter_call",
    "mcp_call",
    "local_shell_call_output",
    "shell_call_output",
)


def server_tool(item: Mapping[str, Any]) -> list[Piece]:
    """What a tool at OpenAI's side was asked and has found: its item, which has no other form; or an image."""
    if item.get("type") == "image_generation_call" and item.get("result"):
        return [_image(item, item["result"], id=text(item.get("id")) or "")]
    if item.get("type") not in _SERVER_TOOLS:
        return NOTHING
    named = {"id": text(item.get("id")) or "", "name": str(item["type"]).removesuffix("_call")}
    error = {"error": "1"} if item.get("error") or item.get("status") == "failed" else {}
    return [Piece(ChunkType.TOOL_RESULT, encoded(item), {**named, **error})]


def _image(told: Mapping[str, Any], data: object, **named: str) -> Piece:
    return image_piece(data, f"image/{text(told.get('output_format')) or 'png'}", **named)


class MediaTranslator(Base):
    """The streams of OpenAI's images and transcripts, of which nothing goes into a job's."""

    def translate(self, event: object) -> list[Piece]:
        """Nothing; it looks for the end."""
        self.note_finish(fields(event))
        return NOTHING

    def finish_of(self, event: Mapping[str, Any]) -> Finish | None:
        raw = text(event.get("type")) or ""
        is_end = raw.endswith(".completed") or raw == "transcript.text.done"
        return Finish(FinishReason.STOP, raw) if is_end else None


class ResponsesTranslator(Base):
    """The OpenAI Responses API."""

    def translate(self, event: object) -> list[Piece]:
        """The pieces of an event."""
        e = fields(event)
        kind = e.get("type")
        at = at_index(e.get("output_index"))
        index = at["index"]
        match kind:
            case "response.output_text.delta":
                return [Piece("content", text(e.get("delta")) or "", at)]
            case "response.reasoning_text.delta":
                return [Piece("reasoning", text(e.get("delta")) or "", {**at, "kind": "text"})]
            case "response.reasoning_summary_text.delta":
                return [Piece("reasoning", text(e.get("delta")) or "", {**at, "kind": "summary"})]
            case "response.refusal.delta":
                return [Piece("refusal", text(e.get("delta")) or "", at)]
            case "response.function_call_arguments.delta" | "response.custom_tool_call_input.delta":
                return [self.more_tool(index, text(e.get("delta")) or "")]
            case "response.output_item.added" | "response.output_item.done":
                return self._item(kind, index, fields(e.get("item")))
            case "response.function_call_arguments.done" | "response.custom_tool_call_input.done":
                return [tool_done(index, self.open_tools.pop(index, ""))]
            case (
                "error"
                | "response.completed"
                | "response.incomplete"
                | "response.failed"
                | "response.cancelled"
            ):
                return self._end(e)
            case _:
                return self._rarely(e)

    def _rarely(self, e: Mapping[str, Any]) -> list[Piece]:
        match e.get("type"):
            case "response.output_text.annotation.added":
                return [Piece(ChunkType.CITATION, encoded(e.get("annotation")))]
            case "response.image_generation_call.partial_image":
                named = {"id": text(e.get("item_id")) or "", "partial": "1"}
                return [_image(e, e.get("partial_image_b64"), **named)]
            case _:
                return NOTHING

    def _item(self, kind: str, index: str, item: Mapping[str, Any]) -> list[Piece]:
        if kind.endswith("done"):
            return server_tool(item)
        if item.get("type") not in CALLS:
            return NOTHING
        return [
            self.open_tool(index, text(item.get("call_id")) or "", text(item.get("name")) or "")
        ]

    def _end(self, event: Mapping[str, Any]) -> list[Piece]:
        self.note_finish(event)
        if event.get("type") == "error":
            return [error_piece(event.get("error") or event)]
        failure = fields(event.get("response")).get("error")
        return [error_piece(failure)] if failure else NOTHING

    def finish_of(self, event: Mapping[str, Any]) -> Finish | None:
        response = fields(event.get("response"))
        match event.get("type"):
            case "response.completed":
                calls = any(
                    fields(item).get("type") in CALLS for item in items(response.get("output"))
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
