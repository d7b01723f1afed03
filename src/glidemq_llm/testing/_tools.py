"""Calls of tools, in the wire formats of OpenAI's chat and Anthropic's messages: what a model asks for, and what is
answered.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

from glidemq_llm._read import EMPTY, fields, items


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A tool that the model calls; `arguments` as text."""

    id: str
    name: str
    arguments: str

    @classmethod
    def read(cls, plain: Mapping[str, Any], id: str) -> Self:
        """From a plan; `id` where it has none."""
        arguments = plain.get("arguments", {})
        text = arguments if isinstance(arguments, str) else json.dumps(arguments)
        return cls(plain.get("id", id), plain["name"], text)

    @property
    def halves(self) -> tuple[str, str]:
        """The arguments in the two pieces in which a stream has them."""
        middle = len(self.arguments) // 2
        return self.arguments[:middle], self.arguments[middle:]


@dataclass(frozen=True, slots=True)
class Answered:
    """What a request says of the tools that were called before it.

    Attributes:
        expected: The ids of the calls.
        results: Id and text of each answer.
    """

    expected: list[str]
    results: list[tuple[str, Any]]

    @property
    def complaint(self) -> str | None:
        """What a vendor would refuse: there has to be one answer for each call, and no other."""
        answered = [id for id, _ in self.results]
        if answered == self.expected:
            return None
        return f"tools were called as {self.expected}, and answered as {answered}"


def chat_deltas(tools: list[ToolCall]) -> Iterator[dict[str, Any]]:
    """The pieces of a stream of OpenAI's."""
    for index, tool in enumerate(tools):
        first, second = tool.halves
        yield {
            "index": index,
            "id": tool.id,
            "type": "function",
            "function": {"name": tool.name, "arguments": first},
        }
        yield {"index": index, "function": {"arguments": second}}


def chat_calls(tools: list[ToolCall]) -> list[dict[str, Any]]:
    """The calls in a whole message of OpenAI's."""
    return [
        {
            "id": tool.id,
            "type": "function",
            "function": {"name": tool.name, "arguments": tool.arguments},
        }
        for tool in tools
    ]


def chat_answered(body: Mapping[str, Any]) -> Answered:
    """What a request in OpenAI's format answers."""
    messages = [fields(message) for message in items(body.get("messages"))]
    trailing = list(itertools.takewhile(_is_result, reversed(messages)))[::-1]
    asked = messages[-len(trailing) - 1] if len(messages) > len(trailing) else EMPTY
    return Answered(
        [fields(call)["id"] for call in items(asked.get("tool_calls"))],
        [(message["tool_call_id"], message.get("content")) for message in trailing],
    )


def _is_result(message: Mapping[str, Any]) -> bool:
    return message.get("role") == "tool"


def anthropic_blocks(tools: list[ToolCall]) -> list[dict[str, Any]]:
    """The calls in a whole message of Anthropic's."""
    return [
        {
            "type": "tool_use",
            "id": tool.id,
            "name": tool.name,
            "input": json.loads(tool.arguments),
        }
        for tool in tools
    ]


def anthropic_events(tools: list[ToolCall], first: int) -> Iterator[dict[str, Any]]:
    """The events of a stream of Anthropic's, after its blocks of text; `first` is the first call's place."""
    for index, tool in enumerate(tools, first):
        block: dict[str, Any] = {"type": "tool_use", "id": tool.id, "name": tool.name, "input": {}}
        yield {"type": "content_block_start", "index": index, "content_block": block}
        for half in tool.halves:
            delta = {"type": "input_json_delta", "partial_json": half}
            yield {"type": "content_block_delta", "index": index, "delta": delta}
        yield {"type": "content_block_stop", "index": index}


def anthropic_answered(body: Mapping[str, Any]) -> Answered:
    """What a request in Anthropic's format answers."""
    messages = [fields(message) for message in items(body.get("messages"))]
    before, last = (messages[-2], messages[-1]) if len(messages) > 1 else (EMPTY, EMPTY)
    return Answered(
        [part["id"] for part in _parts(before, "tool_use")],
        [(part["tool_use_id"], part.get("content")) for part in _parts(last, "tool_result")],
    )


def gemini_parts(tools: list[ToolCall], signature: str | None) -> list[dict[str, Any]]:
    """The calls in a message of Gemini's; only the first is signed."""
    parts: list[dict[str, Any]] = [
        {
            "functionCall": {
                "id": tool.id,
                "name": tool.name,
                "args": json.loads(tool.arguments),
            }
        }
        for tool in tools
    ]
    if parts and signature:
        parts[0]["thoughtSignature"] = signature
    return parts


def gemini_answered(body: Mapping[str, Any]) -> Answered:
    """What a request in Gemini's format answers."""
    contents = [fields(content) for content in items(body.get("contents"))]
    before, last = (contents[-2], contents[-1]) if len(contents) > 1 else (EMPTY, EMPTY)
    calls = [fields(fields(part).get("functionCall")) for part in items(before.get("parts"))]
    answers = [fields(fields(part).get("functionResponse")) for part in items(last.get("parts"))]
    # Its own ids come back; calls of other models have none.
    return Answered(
        [f"{call.get('id')} {call['name']}" for call in calls if call],
        [
            (f"{answer.get('id')} {answer['name']}", answer["response"].get("result"))
            for answer in answers
            if answer
        ],
    )


def _parts(message: Mapping[str, Any], type: str) -> list[Mapping[str, Any]]:
    found = [fields(part) for part in items(message.get("content"))]
    return [part for part in found if part.get("type") == type]
