"""Where commands and replies begin and end in the bytes of a connection (RESP2 and RESP3)."""

from __future__ import annotations

_AGGREGATES = {b"*": 1, b"~": 1, b">": 1, b"%": 2}
_BLOBS = b"$=!"


class Splitter:
    """Collects bytes; answers whole frames."""

    def __init__(self) -> None:
        self._buffer = b""

    def feed(self, data: bytes) -> list[bytes]:
        """The frames that are whole with this."""
        self._buffer += data
        frames: list[bytes] = []
        while (end := _end(self._buffer, 0)) is not None:
            frames.append(self._buffer[:end])
            self._buffer = self._buffer[end:]
        return frames


def _end(data: bytes, start: int) -> int | None:
    """The index behind the frame that begins at `start`; None if it is not whole."""
    position, left = start, 1
    while left:
        line_end = data.find(b"\r\n", position)
        if line_end < 0:
            return None
        kind, line = data[position : position + 1], data[position + 1 : line_end]
        position, left = line_end + 2, left - 1
        if kind in _AGGREGATES:
            left += max(0, int(line)) * _AGGREGATES[kind]
        elif kind in _BLOBS and int(line) >= 0:
            position += int(line) + 2
            if position > len(data):
                return None
    return position


def is_push(frame: bytes) -> bool:
    """Is it a message that answers no command?"""
    return frame[:1] == b">"


def has_reply(frame: bytes) -> bool:
    """Is a command answered by a reply (and not, like subscriptions in RESP3, by pushes)?"""
    words = frame.split(b"\r\n", 3)
    return b"SUBSCRIBE" not in words[2].upper() if len(words) > 2 else True
