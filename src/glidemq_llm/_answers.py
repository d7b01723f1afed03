"""Reading a whole answer, of any vendor: its text, thinking and tool calls as pieces, and why it ended."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from glidemq_llm._read import EMPTY, fields, items, text
from glidemq_llm._translate import at_index, encoded, error_piece, sources, tool_piece
from glidemq_llm._translate_openai import CALLS, beside_text, server_tool, thoughts
from glidemq_llm._translate_others import (
    GeminiTranslator,
    OllamaTranslator,
    anthropic_refusal,
    anthropic_result,
    bedrock_image,
    bedrock_result,
)
from glidemq_llm.chunks import ChunkType, Finish, FinishReason, Piece, finish_reason

Answer = Mapping[str, Any]

# What SDKs put beside an answer's own fields.
_ENVELOPES = frozenset({"sdk_http_response", "ResponseMetadata"})


def failure_of(response: object) -> Piece | None:
    """What an answer under status 200 says of its failure: instead of what was asked for, or (OpenRouter) in a choice."""
    answer = fields(response)
    failed = (fields(choice).get("error") for choice in items(answer.get("choices")))
    error = answer.get("error") or next(filter(None, failed), None)
    return error_piece(error) if error else None


def is_empty(response: object) -> bool:
    """Whether an answer says nothing at all: some SDKs leave out what they do not know, errors as well."""
    if isinstance(response, str):  # a transcript
        return not response
    return not any(value for name, value in fields(response).items() if name not in _ENVELOPES)


def read_answer(response: object) -> tuple[list[Piece], Finish]:
    """The pieces of an answer that came in one piece, and its ending.

    Args:
        response: An SDK's object or a decoded body. The vendor is told by its fields; an answer without any text
            (embeddings, images) gives no pieces.
    """
    answer = fields(response)
    for name, read in _READERS:
        if answer.get(name) is not None:
            return read(answer)
    return [], Finish(FinishReason.UNKNOWN, "")


def _chat(answer: Answer) -> tuple[list[Piece], Finish]:
    """OpenAI chat completions, the older completions, Mistral, and all their kin."""
    pieces: list[Piece] = []
    raw = ""
    for choice in map(fields, items(answer["choices"])):
        at = at_index(choice.get("index"))
        message = fields(choice.get("message"))
        pieces += thoughts(message, at)
        pieces += _content(message.get("content"), at)
        pieces += _said("content", choice.get("text"), at)
        pieces += _said("refusal", message.get("refusal"), at)
        calls = items(message.get("tool_calls"))
        if not calls and message.get("function_call"):  # the form before tool calls
            calls = [{"function": message["function_call"]}]
        pieces += _calls(calls)
        pieces += _citations(message.get("annotations"))
        pieces += beside_text(message)
        raw = raw or text(choice.get("finish_reason")) or ""
    pieces += sources(answer)
    return pieces, Finish(finish_reason(raw), raw)


def _content(content: object, at: Mapping[str, str]) -> Iterator[Piece]:
    """Text, or a list of parts of which some are thinking (Mistral, Cohere)."""
    if isinstance(content, str):
        yield from _said("content", content, at)
    for part in map(fields, items(content)):
        thinking = part.get("thinking")
        yield from _said("reasoning", thinking, at)
        for thought in map(fields, items(thinking)):
            yield from _said("reasoning", thought.get("text"), at)
        yield from _said("content", part.get("text"), at)
        if part.get("type") == "reference":
            yield Piece(ChunkType.CITATION, encoded(part))


def _citations(found: object, at: Mapping[str, str] = EMPTY) -> Iterator[Piece]:
    for one in items(found):
        yield Piece(ChunkType.CITATION, encoded(one), at)


def _calls(calls: list[Any]) -> Iterator[Piece]:
    for index, call in enumerate(map(fields, calls)):
        function = fields(call.get("function"))
        yield _tool(index, call.get("id"), function.get("name"), function.get("arguments"))


def _tool(index: int, call_id: object, name: object, arguments: object) -> Piece:
    return tool_piece(
        encoded(arguments) if arguments else "",
        index=str(index),
        id=text(call_id) or "",
        name=text(name) or "",
        done="1",
    )


def _said(type: str, content: object, at: Mapping[str, str]) -> Iterator[Piece]:
    if isinstance(content, str) and content:
        yield Piece(type, content, at)


def _messages(answer: Answer) -> tuple[list[Piece], Finish]:
    """Anthropic messages."""
    pieces: list[Piece] = []
    for index, block in enumerate(map(fields, items(answer["content"]))):
        at = at_index(index)
        pieces += _said("reasoning", block.get("thinking"), at)
        pieces += _said("content", block.get("text"), at)
        pieces += _citations(block.get("citations"), at)
        kind = str(block.get("type"))
        if kind.endswith("tool_use"):
            call = _tool(index, block.get("id"), block.get("name"), block.get("input"))
            server = {} if kind == "tool_use" else {"server": "1"}
            pieces.append(call._replace(fields={**call.fields, **server}))
        elif kind.endswith("_tool_result"):
            pieces.append(anthropic_result(block))
    pieces += anthropic_refusal(answer)
    raw = text(answer.get("stop_reason")) or ""
    return pieces, Finish(finish_reason(raw), raw)


def _responses(answer: Answer) -> tuple[list[Piece], Finish]:
    """OpenAI responses; Bedrock's Converse has an `output` of another kind."""
    if "message" in fields(answer["output"]):
        return _converse(answer)
    pieces: list[Piece] = []
    has_calls = False
    for index, item in enumerate(map(fields, items(answer["output"]))):
        at = at_index(index)
        for thought in map(fields, items(item.get("summary"))):
            pieces += _said("reasoning", thought.get("text"), {**at, "kind": "summary"})
        for part in map(fields, items(item.get("content"))):
            type = "reasoning" if part.get("type") == "reasoning_text" else "content"
            pieces += _said(type, part.get("text"), at)
            pieces += _said("refusal", part.get("refusal"), at)
            pieces += _citations(part.get("annotations"))
        pieces += server_tool(item)
        if item.get("type") in CALLS:
            has_calls = True
            arguments = item.get("arguments") or item.get("input")
            pieces.append(_tool(index, item.get("call_id"), item.get("name"), arguments))
    return pieces, _responses_finish(answer, has_calls=has_calls)


def _responses_finish(answer: Answer, *, has_calls: bool) -> Finish:
    status = text(answer.get("status")) or ""
    if status == "incomplete":
        raw = text(fields(answer.get("incomplete_details")).get("reason")) or status
        return Finish(finish_reason(raw), raw)
    if status == "completed" and has_calls:
        return Finish(FinishReason.TOOL_CALLS, status)
    return Finish(finish_reason(status), status)


def _converse(answer: Answer) -> tuple[list[Piece], Finish]:
    """Bedrock Converse."""
    pieces: list[Piece] = []
    message = fields(fields(answer["output"]).get("message"))
    for index, block in enumerate(map(fields, items(message.get("content")))):
        at = at_index(index)
        thought = fields(fields(block.get("reasoningContent")).get("reasoningText"))
        pieces += _said("reasoning", thought.get("text"), at)
        pieces += _said("content", block.get("text"), at)
        cited = fields(block.get("citationsContent"))
        pieces += _content(cited.get("content"), at)
        pieces += _citations(cited.get("citations"), at)
        tool = fields(block.get("toolUse"))
        if tool:
            server = {"server": "1"} if tool.get("type") else {}
            call = _tool(index, tool.get("toolUseId"), tool.get("name"), tool.get("input"))
            pieces.append(call._replace(fields={**call.fields, **server}))
        if block.get("toolResult"):
            pieces.append(bedrock_result(fields(block["toolResult"])))
        if block.get("image"):
            pieces.append(bedrock_image(fields(block["image"]), at))
    raw = text(answer.get("stopReason")) or ""
    return pieces, Finish(finish_reason(raw), raw)


def _gemini(answer: Answer) -> tuple[list[Piece], Finish]:
    """A whole answer has the shape of a stream's chunk."""
    reader = GeminiTranslator()
    return reader.translate(answer), reader.finish or Finish(FinishReason.UNKNOWN, "")


def _cohere_or_ollama(answer: Answer) -> tuple[list[Piece], Finish]:
    if "done" in answer:
        reader = OllamaTranslator()
        return reader.translate(answer), reader.finish or Finish(FinishReason.UNKNOWN, "")
    message = fields(answer.get("message"))
    pieces = [
        *_said("reasoning", message.get("tool_plan"), at_index(0)),
        *_content(message.get("content"), at_index(0)),
        *_calls(items(message.get("tool_calls"))),
        *_citations(message.get("citations")),
    ]
    raw = text(answer.get("finish_reason")) or ""
    return pieces, Finish(finish_reason(raw), raw)


# By the field that tells the shape, in this order.
_READERS: tuple[tuple[str, Callable[[Answer], tuple[list[Piece], Finish]]], ...] = (
    ("choices", _chat),
    ("candidates", _gemini),
    ("prompt_feedback", _gemini),
    ("promptFeedback", _gemini),
    ("output", _responses),
    ("content", _messages),
    ("message", _cohere_or_ollama),
    ("done", _cohere_or_ollama),
)
