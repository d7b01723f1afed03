"""What the translators of all APIs share."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from glidemq_core._codec import sound_text
from glidemq_llm._images import decoded_head, image_size
from glidemq_llm._read import fields, items, plain, text
from glidemq_llm.chunks import ChunkType, Finish, FinishReason, Piece

NOTHING: list[Piece] = []
_ADDRESS = 4096
_HEAD = 65_536  # the size of an image is written in its beginning
_INDEX = tuple({"index": str(number)} for number in range(16))


class Base:
    """What all translators share."""

    def __init__(self) -> None:
        self.finish: Finish | None = None
        self.open_tools: dict[str, str] = {}

    def is_terminal(self, event: object) -> bool:
        return self.finish_of(fields(event)) is not None

    def finish_of(self, event: Mapping[str, Any]) -> Finish | None:
        raise NotImplementedError

    def note_finish(self, event: Mapping[str, Any]) -> None:
        found = self.finish_of(event)
        if found is not None and (self.finish is None or found.reason is not FinishReason.UNKNOWN):
            self.finish = found

    def close_tools(self) -> list[Piece]:
        closed = [tool_done(index, call_id) for index, call_id in self.open_tools.items()]
        self.open_tools.clear()
        return closed

    def open_tool(
        self, index: str, call_id: str, name: str, arguments: str = "", *, server: bool = False
    ) -> Piece:
        self.open_tools[index] = call_id
        by_whom = "1" if server else ""
        return tool_piece(arguments, index=index, id=call_id, name=name, server=by_whom)

    def more_tool(self, index: str, arguments: str) -> Piece:
        return tool_piece(arguments, index=index, id=self.open_tools.get(index, ""))


def tool_piece(arguments: str, **named: str) -> Piece:
    return Piece(
        ChunkType.TOOL_CALL, arguments, {name: value for name, value in named.items() if value}
    )


def tool_done(index: str, call_id: str) -> Piece:
    return tool_piece("", index=index, id=call_id, done="1")


def encoded(value: object) -> str:
    return (
        value
        if isinstance(value, str)
        else json.dumps(plain(value), ensure_ascii=False, default=str)
    )


def at_index(index: object) -> Mapping[str, str]:
    number = index if isinstance(index, int) and index >= 0 else 0
    return _INDEX[number] if number < len(_INDEX) else {"index": str(number)}


def image_piece(data: object, media_type: object, **named: str) -> Piece:
    """What is told of an image: all but the image. `data` is its bytes or base64; a data URL or an address."""
    address = ""
    if isinstance(data, str) and data.startswith("data:"):
        head, _, data = data[5:].partition(",")
        media_type = head.partition(";")[0] or media_type
    elif isinstance(data, str) and "://" in data[:12]:
        address, data = data if len(data) <= _ADDRESS else "", b""
    if isinstance(data, bytes | bytearray):
        length, head = len(data), bytes(data[:_HEAD])
    else:
        given = data if isinstance(data, str) else ""
        length, head = len(given.rstrip("=")) * 3 // 4, decoded_head(given, _HEAD)
    size = image_size(head)
    facts = {
        **named,
        "media_type": (text(media_type) or "")[:100],
        "bytes": str(length or ""),
        "size": f"{size[0]}x{size[1]}" if size else "",
    }
    return Piece(
        ChunkType.IMAGE, sound_text(address), {n: fact for n, fact in facts.items() if fact}
    )


def error_piece(error: object) -> Piece:
    body = fields(error)
    message = text(body.get("message")) or text(error) or encoded(error)
    code = body.get("code") or body.get("type")
    code = text(code) or (str(code) if isinstance(code, int) else None)
    return Piece(ChunkType.ERROR, message, {"code": code[:200]} if code else {})


def sources(answer: Mapping[str, Any]) -> list[Piece]:
    """The sources that Perplexity names beside an answer's choices, in each of its chunks."""
    found = items(answer.get("search_results")) or [
        {"url": url} for url in items(answer.get("citations"))
    ]
    return [Piece(ChunkType.CITATION, encoded(source)) for source in found]
