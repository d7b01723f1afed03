"""The streams of Anthropic, Gemini, Cohere, Ollama and Bedrock."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from glidemq_llm._read import fields, items, text
from glidemq_llm._translate import (
    NOTHING,
    Base,
    at_index,
    encoded,
    error_piece,
    image_piece,
    tool_done,
    tool_piece,
)
from glidemq_llm.chunks import ChunkType, Finish, FinishReason, Piece, finish_reason


class AnthropicTranslator(Base):
    """Anthropic messages; Bedrock's and Vertex' Anthropic models included."""

    def translate(self, event: object) -> list[Piece]:
        """The pieces of an event."""
        e = fields(event)
        match e.get("type"):
            case "content_block_delta":
                return self._delta(fields(e.get("delta")), at_index(e.get("index")))
            case "content_block_start":
                return self._block(fields(e.get("content_block")), at_index(e.get("index")))
            case "content_block_stop":
                index = at_index(e.get("index"))["index"]
                if index in self.open_tools:
                    return [tool_done(index, self.open_tools.pop(index))]
                return NOTHING
            case "message_delta" | "message_stop":
                self.note_finish(e)
                return anthropic_refusal(fields(e.get("delta")))
            case "error":
                self.note_finish(e)
                return [error_piece(e.get("error"))]
            case _:
                return NOTHING

    def _delta(self, delta: Mapping[str, Any], at: Mapping[str, str]) -> list[Piece]:
        match delta.get("type"):
            case "text_delta":
                return [Piece("content", text(delta.get("text")) or "", at)]
            case "thinking_delta":
                return [Piece("reasoning", text(delta.get("thinking")) or "", at)]
            case "input_json_delta":
                arguments = text(delta.get("partial_json")) or ""
                return [self.more_tool(at["index"], arguments)] if arguments else NOTHING
            case "citations_delta":
                return [Piece(ChunkType.CITATION, encoded(delta.get("citation")), at)]
            case _:
                return NOTHING

    def _block(self, block: Mapping[str, Any], at: Mapping[str, str]) -> list[Piece]:
        kind = str(block.get("type"))
        if kind in ("tool_use", "server_tool_use", "mcp_tool_use"):
            call_id, name = text(block.get("id")) or "", text(block.get("name")) or ""
            return [self.open_tool(at["index"], call_id, name, server=kind != "tool_use")]
        if kind.endswith("_tool_result"):
            return [anthropic_result(block)]
        if kind == "text" and block.get("text"):
            return [Piece(ChunkType.CONTENT, str(block["text"]), at)]
        return NOTHING

    def finish_of(self, event: Mapping[str, Any]) -> Finish | None:
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


def anthropic_refusal(end: Mapping[str, Any]) -> list[Piece]:
    """What is said of a refusal where the answer's end is told: in a stream's last delta, or in the whole message."""
    if end.get("stop_reason") != "refusal":
        return NOTHING
    details = fields(end.get("stop_details"))
    why = text(details.get("explanation")) or text(details.get("category")) or ""
    return [Piece(ChunkType.REFUSAL, why)]


def anthropic_result(block: Mapping[str, Any]) -> Piece:
    """What a tool at Anthropic's side has found."""
    error = {"error": "1"} if block.get("is_error") else {}
    named = {"id": text(block.get("tool_use_id")) or "", **error}
    return Piece(ChunkType.TOOL_RESULT, encoded(block.get("content")), named)


class GeminiTranslator(Base):
    """Gemini and Vertex `generateContent`; the SDK's snake case and the wire's camel case."""

    def __init__(self) -> None:
        super().__init__()
        self._codes = 0

    def translate(self, event: object) -> list[Piece]:
        """The pieces of a chunk; function calls come whole."""
        e = fields(event)
        pieces: list[Piece] = []
        for candidate in map(fields, items(e.get("candidates"))):
            at = at_index(candidate.get("index"))
            for part in items(fields(candidate.get("content")).get("parts")):
                pieces += self._part(fields(part), at)
            found = map(candidate.get, _GEMINI_SOURCES)
            pieces += [Piece(ChunkType.CITATION, encoded(one)) for one in found if one]
        blocked = _block_reason(e)
        if blocked:
            pieces.append(Piece(ChunkType.REFUSAL, blocked))
        if e.get("error"):
            pieces.append(error_piece(e["error"]))
        self.note_finish(e)
        return pieces

    def _part(self, part: Mapping[str, Any], at: Mapping[str, str]) -> list[Piece]:
        written = part.get("text")
        if isinstance(written, str) and written:
            return [Piece("reasoning" if part.get("thought") else "content", written, at)]
        medium = fields(
            part.get("inlineData")
            or part.get("inline_data")
            or part.get("fileData")
            or part.get("file_data")
        )
        if medium:
            return _gemini_image(medium, at, is_draft=bool(part.get("thought")))
        call = fields(part.get("functionCall") or part.get("function_call"))
        if call:
            index = str(len(self.open_tools) + self._codes)
            self.open_tools[index] = ""
            name, call_id = text(call.get("name")) or "", text(call.get("id")) or ""
            return [
                tool_piece(
                    encoded(call.get("args") or {}), index=index, id=call_id, name=name, done="1"
                )
            ]
        code = part.get("executableCode") or part.get("executable_code")
        if code:
            index = str(len(self.open_tools) + self._codes)
            self._codes += 1
            named = {"index": index, "name": "code_execution", "server": "1", "done": "1"}
            return [tool_piece(encoded(code), **named)]
        result = part.get("codeExecutionResult") or part.get("code_execution_result")
        return [Piece(ChunkType.TOOL_RESULT, encoded(result), at)] if result else NOTHING

    def finish_of(self, event: Mapping[str, Any]) -> Finish | None:
        for candidate in map(fields, items(event.get("candidates"))):
            raw = text(candidate.get("finishReason") or candidate.get("finish_reason"))
            if raw and raw != "FINISH_REASON_UNSPECIFIED":
                reason = finish_reason(raw)
                if reason is FinishReason.STOP and self.open_tools:
                    reason = FinishReason.TOOL_CALLS  # Gemini says STOP after function calls too
                return Finish(reason, raw)
        blocked = _block_reason(event)
        if blocked:
            return Finish(FinishReason.CONTENT_FILTER, blocked)
        return Finish(FinishReason.ERROR, "error") if event.get("error") else None


def _gemini_image(
    medium: Mapping[str, Any], at: Mapping[str, str], *, is_draft: bool
) -> list[Piece]:
    media_type = text(medium.get("mimeType") or medium.get("mime_type")) or ""
    if not media_type.startswith("image/"):
        return NOTHING
    data = medium.get("data") or medium.get("fileUri") or medium.get("file_uri")
    draft = {"partial": "1"} if is_draft else {}
    return [image_piece(data, media_type, **at, **draft)]


_GEMINI_SOURCES = (
    "groundingMetadata",
    "grounding_metadata",
    "citationMetadata",
    "citation_metadata",
)


def _block_reason(event: Mapping[str, Any]) -> str | None:
    feedback = fields(event.get("promptFeedback") or event.get("prompt_feedback"))
    return text(feedback.get("blockReason") or feedback.get("block_reason"))


class CohereTranslator(Base):
    """Cohere chat, version 2."""

    def translate(self, event: object) -> list[Piece]:
        """The pieces of an event."""
        e = fields(event)
        at = at_index(e.get("index"))
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
                    self.open_tool(
                        at["index"], call_id, name, text(function.get("arguments")) or ""
                    )
                ]
            case "tool-call-delta":
                function = fields(fields(message.get("tool_calls")).get("function"))
                return [self.more_tool(at["index"], text(function.get("arguments")) or "")]
            case "tool-call-end":
                return [tool_done(at["index"], self.open_tools.pop(at["index"], ""))]
            case "citation-start":
                return [Piece(ChunkType.CITATION, encoded(message.get("citations")))]
            case "message-end":
                self.note_finish(e)
                delta = fields(e.get("delta"))
                is_failure = delta.get("finish_reason") == "ERROR"
                failure = delta.get("error") or ("it ended with ERROR" if is_failure else None)
                return [error_piece(failure)] if failure else NOTHING
            case _:
                return NOTHING

    def finish_of(self, event: Mapping[str, Any]) -> Finish | None:
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


class OllamaTranslator(Base):
    """Ollama's own API, `/api/chat` and `/api/generate`."""

    def translate(self, event: object) -> list[Piece]:
        """The pieces of a line; tool calls come whole."""
        e = fields(event)
        message = fields(e.get("message"))
        pieces: list[Piece] = []
        thinking = message.get("thinking") or e.get("thinking")
        if thinking:
            pieces.append(Piece(ChunkType.REASONING, str(thinking), at_index(0)))
        written = message.get("content") or e.get("response")
        if isinstance(written, str) and written:
            pieces.append(Piece(ChunkType.CONTENT, written, at_index(0)))
        for call in map(fields, items(message.get("tool_calls"))):
            function = fields(call.get("function"))
            index = str(len(self.open_tools))
            self.open_tools[index] = ""
            arguments = encoded(function.get("arguments") or {})
            pieces.append(
                tool_piece(arguments, index=index, name=text(function.get("name")) or "", done="1")
            )
        if e.get("error"):
            pieces.append(error_piece(e["error"]))
        self.note_finish(e)
        return pieces

    def finish_of(self, event: Mapping[str, Any]) -> Finish | None:
        if event.get("error"):
            return Finish(FinishReason.ERROR, "error")
        if event.get("done") is not True:
            return None
        raw = text(event.get("done_reason")) or "stop"
        reason = finish_reason(raw)
        if reason is FinishReason.STOP and self.open_tools:
            reason = FinishReason.TOOL_CALLS
        return Finish(reason, raw)


class BedrockTranslator(Base):
    """Bedrock `converse_stream`."""

    def __init__(self) -> None:
        super().__init__()
        # What tools at Bedrock's side have found, and images: blocks that are told when they are whole.
        self._blocks: dict[str, tuple[str, dict[str, Any], list[Any]]] = {}

    def translate(self, event: object) -> list[Piece]:
        """The pieces of an event."""
        e = fields(event)
        if "contentBlockDelta" in e:
            block = fields(e["contentBlockDelta"])
            return self._delta(fields(block.get("delta")), at_index(block.get("contentBlockIndex")))
        if "contentBlockStart" in e:
            block = fields(e["contentBlockStart"])
            index = at_index(block.get("contentBlockIndex"))["index"]
            return self._start(fields(block.get("start")), index)
        if "contentBlockStop" in e:
            return self._stop(at_index(fields(e["contentBlockStop"]).get("contentBlockIndex")))
        self.note_finish(e)
        failure = next((name for name in e if name.endswith("Exception")), None)
        return [error_piece({"code": failure, **fields(e[failure])})] if failure else NOTHING

    def _start(self, start: Mapping[str, Any], index: str) -> list[Piece]:
        tool = fields(start.get("toolUse"))
        if tool:
            call_id, name = text(tool.get("toolUseId")) or "", text(tool.get("name")) or ""
            return [self.open_tool(index, call_id, name, server=bool(tool.get("type")))]
        for kind in ("toolResult", "image"):
            if kind in start:
                self._blocks[index] = kind, dict(fields(start[kind])), []
        return NOTHING

    def _stop(self, at: Mapping[str, str]) -> list[Piece]:
        index = at["index"]
        if index in self.open_tools:
            return [tool_done(index, self.open_tools.pop(index))]
        kind, block, parts = self._blocks.pop(index, ("", {}, []))
        if kind == "toolResult":
            return [bedrock_result({**block, "content": parts})]
        if kind == "image":
            data = b"".join(part for part in parts if isinstance(part, bytes))
            return [bedrock_image({**block, "source": {"bytes": data}}, at)]
        return NOTHING

    def _delta(self, delta: Mapping[str, Any], at: Mapping[str, str]) -> list[Piece]:
        if delta.get("text"):
            return [Piece("content", str(delta["text"]), at)]
        reasoning = fields(delta.get("reasoningContent"))
        if reasoning.get("text"):
            return [Piece("reasoning", str(reasoning["text"]), at)]
        tool = fields(delta.get("toolUse"))
        if tool:
            return [self.more_tool(at["index"], text(tool.get("input")) or "")]
        if at["index"] in self._blocks:
            image = fields(fields(delta.get("image")).get("source"))
            self._blocks[at["index"]][2].extend(
                [*items(delta.get("toolResult")), *filter(None, [image.get("bytes")])]
            )
        citation = delta.get("citation")
        return [Piece(ChunkType.CITATION, encoded(citation), at)] if citation else NOTHING

    def finish_of(self, event: Mapping[str, Any]) -> Finish | None:
        if "messageStop" in event:
            raw = text(fields(event["messageStop"]).get("stopReason")) or "end_turn"
            return Finish(finish_reason(raw), raw)
        failed = any(name.endswith("Exception") for name in event)
        return Finish(FinishReason.ERROR, "exception") if failed else None


def bedrock_result(block: Mapping[str, Any]) -> Piece:
    """What a tool at Bedrock's side has found. Its texts come in pieces."""
    parts: list[Any] = []
    for part in items(block.get("content")):
        more, last = fields(part).get("text"), fields(parts[-1] if parts else None).get("text")
        if isinstance(more, str) and isinstance(last, str):
            parts[-1] = {"text": last + more}
        else:
            parts.append(part)
    named = {"id": text(block.get("toolUseId")) or "", "name": text(block.get("type")) or ""}
    error = {"error": "1"} if block.get("status") == "error" else {}
    known = {name: value for name, value in named.items() if value}
    return Piece(ChunkType.TOOL_RESULT, encoded(parts), {**known, **error})


def bedrock_image(block: Mapping[str, Any], at: Mapping[str, str]) -> Piece:
    """An image of Bedrock's."""
    source = fields(block.get("source"))
    address = fields(source.get("s3Location")).get("uri")
    media_type = f"image/{text(block.get('format')) or 'png'}"
    return image_piece(address or source.get("bytes"), media_type, **at)
