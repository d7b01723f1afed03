"""What a vendor wants to see again when the tools that it has called are answered: thinking and signatures, as it sent them.

It is noted while a turn is streamed, kept as JSON beside the turn, and put into the next requests to the same model at the
same vendor. Nobody else is sent it: signatures of others are refused.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from itertools import zip_longest
from typing import Any, Final, Protocol

from glidemq_core._codec import sound_text
from glidemq_llm._read import EMPTY, fields, items, plain
from glidemq_llm._translate import at_index

Kept = dict[str, Any]


class _Notes(Protocol):
    def note(self, event: Mapping[str, Any]) -> None:
        """Take in one event of the turn's stream."""
        ...

    def kept(self) -> Kept | None:
        """What is to be sent back: `content`, which stands for text and calls as well, or `fields` of the message and of its
        `calls`. None: the vendor asks for nothing.
        """
        ...


class Memory:
    """Notes of one turn, whoever answers it in the end."""

    def __init__(self) -> None:
        self._of: list[str] = []
        self._notes: _Notes | None = None

    def begin(self, api: str, provider: str, model: str) -> Callable[[object], bool]:
        """A model is asked; answers what is to be called with each event of its stream (and always answers True)."""
        make = _NOTES.get(api)
        self._of, self._notes = [api, provider, model], make() if make is not None else None
        return self._note

    def _note(self, event: object) -> bool:
        if self._notes is not None:
            self._notes.note(fields(event))
        return True

    def kept(self) -> Kept | None:
        """What the model that was asked last wants back, for `said_to`."""
        found = self._notes.kept() if self._notes is not None else None
        if found is None:
            return None
        written = json.dumps({"of": self._of, **found}, ensure_ascii=False, default=str)
        return json.loads(sound_text(written), parse_constant=lambda _: None)


def said_to(api: str, provider: str, model: str, message: Any) -> Any:
    """A message of the conversation as that model is sent it: with `own` in its place if it is the model's, else without."""
    if not fields(message).get("tool_calls"):
        return message
    own = fields(fields(message).get("own"))
    said = {name: value for name, value in fields(message).items() if name != "own"}
    if own.get("of") == [api, provider, model]:
        if "content" in own:
            return {**said, "content": own["content"]}
        pairs = zip_longest(said["tool_calls"], own["calls"], fillvalue=EMPTY)
        said |= {**own["fields"], "tool_calls": [{**call, **more} for call, more in pairs if call]}
    if provider == "deepseek" and api == "openai.chat":
        # In thinking mode it refuses calls without, also those that another model has made.
        said.setdefault("reasoning_content", " ")
    return said


class _Anthropic:
    """The blocks of a message: thinking has to come back where it stood."""

    def __init__(self) -> None:
        self._blocks: dict[str, dict[str, Any]] = {}
        self._input: dict[str, str] = {}

    def note(self, event: Mapping[str, Any]) -> None:
        index = at_index(event.get("index"))["index"]
        match event.get("type"):
            case "content_block_start":
                self._blocks[index] = _given(event.get("content_block"))
            case "content_block_delta" if index in self._blocks:
                self._more(index, fields(event.get("delta")))
            case _:
                pass

    def _more(self, index: str, delta: Mapping[str, Any]) -> None:
        block = self._blocks[index]
        match delta.get("type"):
            case "text_delta":
                block["text"] = _joined(block.get("text"), delta.get("text"))
            case "thinking_delta":
                block["thinking"] = _joined(block.get("thinking"), delta.get("thinking"))
            case "signature_delta":
                block["signature"] = plain(delta.get("signature"))
            case "input_json_delta":
                self._input[index] = _joined(self._input.get(index), delta.get("partial_json"))
            case "citations_delta":
                cited = items(block.get("citations"))
                block["citations"] = [*cited, plain(delta.get("citation"))]
            case _:
                pass

    def kept(self) -> Kept | None:
        for index, written in self._input.items():
            self._blocks[index]["input"] = _object(written)
        blocks = list(self._blocks.values())
        if all(block.get("type") in ("text", "tool_use") for block in blocks):
            return None
        return {"content": [block for block in blocks if block.get("text") != ""]}


def _object(written: str) -> Mapping[str, Any]:
    try:
        return fields(json.loads(written or "{}"))
    except ValueError:
        return {}


class _Gemini:
    """The parts of a message: a signature belongs to the part that it came with, also to an empty one."""

    def __init__(self) -> None:
        self._parts: list[dict[str, Any]] = []

    def note(self, event: Mapping[str, Any]) -> None:
        candidate = fields(next(iter(items(event.get("candidates"))), None))
        for part in items(fields(candidate.get("content")).get("parts")):
            if hasattr(part, "model_dump"):
                self._add(part.model_dump(mode="json", exclude_none=True))  # bytes as base64

    def _add(self, part: dict[str, Any]) -> None:
        if "inline_data" in part:
            return  # an image is no part of the conversation, and too large to keep
        last = self._parts[-1] if self._parts else {}
        is_more = "text" in last and "text" in part and last.get("thought") == part.get("thought")
        if is_more and part.keys() | last.keys() <= {"text", "thought"}:
            last["text"] += part["text"]
        elif part:
            self._parts.append(part)

    def kept(self) -> Kept | None:
        is_signed = any("thought_signature" in part for part in self._parts)
        return {"content": self._parts} if is_signed else None


class _Chat:
    """Fields of a message in the chat format that only some vendors have, and of its calls."""

    def __init__(self) -> None:
        self._reasoning = ""
        self._details: list[dict[str, Any]] = []
        self._blocks: list[dict[str, Any]] = []
        self._calls: dict[str, dict[str, Any]] = {}

    def note(self, event: Mapping[str, Any]) -> None:
        choice = fields(next(iter(items(event.get("choices"))), None))
        delta = fields(choice.get("delta"))
        if choice.get("index"):
            return
        self._reasoning = _joined(self._reasoning, delta.get("reasoning_content"))
        for detail in items(delta.get("reasoning_details")):
            _add_piece(self._details, _given(detail), ("text", "summary"))
        for block in items(delta.get("thinking_blocks")):
            _add_piece(self._blocks, _given(block), ("thinking",))
        for call in map(fields, items(delta.get("tool_calls"))):
            more = {name: plain(call[name]) for name in _OF_CALLS if call.get(name)}
            self._calls.setdefault(at_index(call.get("index"))["index"], {}).update(more)

    def kept(self) -> Kept | None:
        named = {
            "reasoning_content": self._reasoning,
            "reasoning_details": self._details,
            "thinking_blocks": self._blocks,
        }
        found = {name: value for name, value in named.items() if value}
        calls = list(self._calls.values())
        return {"fields": found, "calls": calls} if found or any(calls) else None


# Gemini's signatures behind an OpenAI-compatible address, and behind LiteLLM.
_OF_CALLS: Final = ("extra_content", "provider_specific_fields")


def _add_piece(found: list[dict[str, Any]], piece: dict[str, Any], texts: tuple[str, ...]) -> None:
    """Add a piece of a list that is streamed: pieces of one text are joined, a signature ends it."""
    last = found[-1] if found else {}
    is_more = all(last.get(name) == piece.get(name) for name in ("type", "index"))
    if is_more and not last.get("signature") and any(name in last for name in texts):
        named = [name for name in texts if name in piece]
        last.update({**piece, **{name: _joined(last.get(name), piece[name]) for name in named}})
    else:
        found.append(piece)


def _given(value: object) -> dict[str, Any]:
    return {name: one for name, one in fields(plain(value)).items() if one is not None}


def _joined(before: object, more: object) -> str:
    return "".join(one for one in (before, more) if isinstance(one, str))


_NOTES: Final[Mapping[str, Callable[[], _Notes]]] = {
    "anthropic.messages": _Anthropic,
    "gemini": _Gemini,
    "openai.chat": _Chat,
}
