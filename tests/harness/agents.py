"""Agents in tests: what their models say, and what has become of it."""

from __future__ import annotations

from typing import Any

from tests.harness.provider import Behaviour

ASK = [{"role": "user", "content": "go"}]


def calls(*tools: tuple[str, Any], **more: Any) -> Behaviour:
    """A turn that says a word and calls tools."""
    listed = [{"name": name, "arguments": arguments} for name, arguments in tools]
    return Behaviour(**{"text": "thinking. ", "input": 10, "tools": listed} | more)


def says(text: str = "done", **more: Any) -> Behaviour:
    return Behaviour(text=text, input=10, **more)


async def add(a: int, b: int = 1) -> int:
    """Add two numbers."""
    return a + b


def told(provider, model) -> list[list[Any]]:
    """What each turn was told of the tools it had called."""
    return [call.tool_results for call in provider.calls(model=model)]


def results(ended) -> list[tuple[str, str, bool]]:
    return [
        (chunk.fields["name"], chunk.content, "error" in chunk.fields)
        for chunk in ended.of("tool_result")
    ]
