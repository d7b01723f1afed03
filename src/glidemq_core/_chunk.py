"""Chunks, as readers are given them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

_fields = msgspec.json.Decoder(dict[str, Any])
_ENDS: Final = ("done", "reset")

# A writer marks each so manieth chunk of a run with the call that is open, for readers who begin behind its start.
MARK_EACH: Final = 64
MARK: Final = "_call"


class Chunk(msgspec.Struct, frozen=True):
    """One entry of a job's stream.

    Attributes:
        id: Its place in the stream; give the last one seen as `after=` to go on from there.
        type: "content", "reasoning", "tool_call", "usage", ..., "reset" (drop the text since `fields["keep_upto"]`),
            "gap" (older chunks have been trimmed), "end" (the last one; `content` is the job's state).
        content: Its text.
        epoch: The run that wrote it. `seq`: its number within that run, from 1.
        fields: Further facts.
        call: The model call that wrote it: from its `start` to its `done`. "" if none was open.
    """

    id: str
    type: str
    content: str = ""
    epoch: int = 0
    seq: int = 0
    fields: dict[str, Any] | None = None
    call: str = ""


class Naming:
    """Whose chunks one reader reads: a chunk that does not name its call is of the one that began last in its run.

    Attributes:
        is_known: False while somebody has to tell which call is open where the reader goes on.
    """

    __slots__ = ("_call", "_epoch", "is_known")

    def __init__(self, after: str = "") -> None:
        self.is_known = not after
        self._epoch, self._call = 0, ""

    def chunks(
        self, entries: Sequence[tuple[bytes, list[bytes]]], open_call: bytes = b""
    ) -> list[Chunk]:
        """The next entries of a stream.

        Args:
            open_call: The call that is open before the first one, where that had to be told.
        """
        if not self.is_known and entries:
            self.is_known = True
            self._epoch, self._call = int(entries[0][1][5]), open_call.decode()
        return [self._chunk(place, fields) for place, fields in entries]

    def _chunk(self, place: bytes, fields: list[bytes]) -> Chunk:
        kind, epoch, seq, more = fields[1].decode(), int(fields[5]), int(fields[7]), None
        if epoch != self._epoch:
            self._epoch, self._call = epoch, ""
        call = self._call
        if len(fields) > 9:
            more = _fields.decode(fields[9])
            if seq % MARK_EACH == 0 and MARK in more:
                call = self._call = more.pop(MARK)
            named = more.get("call")
            if isinstance(named, str):
                call = named
                self._call = open_after(self._call, kind, named)
        return Chunk(place.decode(), kind, fields[3].decode(), epoch, seq, more or None, call)


def open_after(before: str, kind: str, call: str) -> str:
    """Which call is open, "" if none is, after a chunk that names its own."""
    if kind == "start":
        return call
    return "" if kind in _ENDS and call == before else before
