"""Messages in the chat format, for vendors that have another one: text, images, tool calls and their results.

What can't be carried over safely (a vendor's own kinds of parts) is refused, with a hint at `convert=`. Messages that are
in the vendor's own format already are left alone. Where the calls of tools are among those, `tool_calls` only name them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NoReturn, TypeAlias

from glidemq_core.errors import UnrecoverableError
from glidemq_llm._read import fields, items, text

Role: TypeAlias = Literal["user", "assistant"]
Given: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Text:
    """A piece of text."""

    text: str


@dataclass(frozen=True, slots=True)
class Image:
    """An image by its address, or (`media_type`, base64 `data`)."""

    url: str = ""
    media_type: str = ""
    data: str = ""


@dataclass(frozen=True, slots=True)
class ToolUse:
    """A tool that the model called."""

    id: str
    name: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What the tool answered; `name` as in the call, where that is among the messages."""

    id: str
    name: str
    content: str


@dataclass(frozen=True, slots=True)
class Own:
    """A part in the vendor's own format."""

    part: Given


Part: TypeAlias = Text | Image | ToolUse | ToolResult | Own


@dataclass(slots=True)
class Turn:
    """Consecutive messages of one side."""

    role: Role
    parts: list[Part] = field(default_factory=list[Part])


@dataclass(slots=True)
class Chat:
    """A conversation.

    Attributes:
        system: The texts of all system messages, joined.
    """

    system: str
    turns: list[Turn]


def read_chat(messages: Sequence[Any], *, own: frozenset[str] = frozenset()) -> Chat:
    """Read messages.

    Args:
        messages: In the chat format.
        own: The `type`s (or keys) of parts that the vendor has itself: they are kept.

    Raises:
        UnrecoverableError: There is a part that has no counterpart.
    """
    system: list[str] = []
    turns: list[Turn] = []
    names: dict[str, str] = {}
    for message in map(fields, messages):
        role = message.get("role")
        if role in ("system", "developer"):
            system.append(_joined(message.get("content")))
            continue
        side: Role = "assistant" if role in ("assistant", "model") else "user"
        parts = list(_parts(message, names, own))
        if turns and turns[-1].role == side:
            turns[-1].parts += parts
        else:
            turns.append(Turn(side, parts))
    return Chat("\n\n".join(system), turns)


def _parts(message: Given, names: dict[str, str], own: frozenset[str]) -> Iterator[Part]:
    if message.get("role") == "tool":
        call_id = text(message.get("tool_call_id")) or ""
        yield ToolResult(call_id, names.get(call_id, ""), _joined(message.get("content")))
        return
    content = message.get("content", message.get("parts"))
    has_calls = False
    if isinstance(content, str):
        if content:
            yield Text(content)
    else:
        for part in map(fields, items(content)):
            has_calls = has_calls or part.get("type") == "tool_use" or not _CALLS.isdisjoint(part)
            yield _part(part, own)
    for call in map(fields, items(message.get("tool_calls"))):
        function = fields(call.get("function"))
        call_id, name = text(call.get("id")) or "", text(function.get("name")) or ""
        names[call_id] = name
        if not has_calls:
            yield ToolUse(call_id, name, read_arguments(function.get("arguments")))


_CALLS = frozenset({"function_call", "functionCall", "toolUse"})


def _part(part: Given, own: frozenset[str]) -> Part:
    kind = part.get("type")
    if not own.isdisjoint(part):
        return Own(part)
    if kind == "text" or (kind is None and isinstance(part.get("text"), str)):
        # A vendor's extras beside the text (a cache mark) are kept where the vendor has them.
        return Own(part) if own and len(part) > 2 else Text(part.get("text") or "")
    if kind == "image_url":
        image = part.get("image_url")
        return _image(image if isinstance(image, str) else str(fields(image).get("url")))
    if kind in own:
        return Own(part)
    return _refuse(kind or next(iter(part), None))


def _image(url: str) -> Image:
    if not url.startswith("data:"):
        return Image(url=url)
    head, _, data = url.removeprefix("data:").partition(",")
    media_type, _, encoding = head.partition(";")
    if encoding != "base64":
        _refuse("image_url")
    return Image(media_type=media_type, data=data)


def _refuse(kind: object) -> NoReturn:
    raise UnrecoverableError(
        f"a message part of type {kind!r} has no counterpart at this provider; "
        "give chat_handler a convert= that says what to do with it"
    )


def _joined(content: object) -> str:
    if isinstance(content, str):
        return content
    return "".join(text(fields(part).get("text")) or "" for part in items(content))


def read_arguments(value: object) -> Mapping[str, Any]:
    """The arguments of a tool call, which may be JSON text.

    Raises:
        UnrecoverableError: They are no JSON.
    """
    if not isinstance(value, str):
        return fields(value)
    try:
        return fields(json.loads(value or "{}"))
    except ValueError:
        raise UnrecoverableError(
            "the arguments of a tool call in the messages are no JSON"
        ) from None


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that the model may call."""

    name: str
    description: str
    schema: Mapping[str, Any]


def read_tools(tools: object) -> tuple[list[Tool], list[Any]]:
    """The functions among the tools, and those that are in a vendor's own format."""
    found: list[Tool] = []
    own: list[Any] = []
    for tool in items(tools):
        function = fields(fields(tool).get("function"))
        if fields(tool).get("type") == "function" and function:
            schema = fields(function.get("parameters")) or {"type": "object", "properties": {}}
            description = text(function.get("description")) or ""
            found.append(Tool(text(function.get("name")) or "", description, schema))
        else:
            own.append(tool)
    return found, own


def read_tool_choice(choice: object) -> tuple[str, str] | None:
    """("auto", ""), ("none", ""), ("required", "") or ("function", its name); None if it is not in the chat format."""
    if isinstance(choice, str) and choice in ("auto", "none", "required"):
        return choice, ""
    name = text(fields(fields(choice).get("function")).get("name"))
    return ("function", name) if name else None


def take_limits(params: dict[str, Any]) -> dict[str, Any]:
    """Take what every vendor has under a name of its own out of the params: max_tokens, stop, temperature, top_p."""
    found: dict[str, Any] = {}
    for name in ("max_tokens", "max_completion_tokens"):
        value = params.pop(name, None)
        if value is not None:
            found["max_tokens"] = value
    stop = params.pop("stop", None)
    if stop is not None:
        found["stop"] = [stop] if isinstance(stop, str) else stop
    for name in ("temperature", "top_p"):
        value = params.pop(name, None)
        if value is not None:
            found[name] = value
    return found
