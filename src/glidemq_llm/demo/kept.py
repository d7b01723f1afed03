"""The text of a job's stream as its reader should show it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol


class StreamChunk(Protocol):
    """What a reader of a job's stream gets."""

    @property
    def id(self) -> str:
        """Its position in the stream."""
        ...

    @property
    def type(self) -> str:
        """What kind of chunk."""
        ...

    @property
    def content(self) -> str:
        """Its text."""
        ...

    @property
    def fields(self) -> Mapping[str, Any]:
        """What else it carries."""
        ...


def _position(chunk_id: str) -> tuple[int, int]:
    milliseconds, _, number = chunk_id.partition("-")
    return int(milliseconds or 0), int(number or 0)


@dataclass(slots=True)
class KeptText:
    """Collects the content of a stream and drops what a `reset` takes back."""

    pieces: list[tuple[tuple[int, int], str]] = field(
        default_factory=list[tuple[tuple[int, int], str]]
    )
    resets: int = 0
    dropped: int = 0
    """How many characters were taken back."""

    def feed(self, chunk: StreamChunk) -> None:
        """Take the next chunk of the stream."""
        if chunk.type == "content":
            self.pieces.append((_position(chunk.id), chunk.content))
        elif chunk.type == "reset":
            before = len(self.text)
            upto = _position(chunk.fields.get("keep_upto", ""))
            self.pieces = [piece for piece in self.pieces if piece[0] <= upto]
            self.resets += 1
            self.dropped += before - len(self.text)

    @property
    def text(self) -> str:
        """What stands."""
        return "".join(text for _, text in self.pieces)
