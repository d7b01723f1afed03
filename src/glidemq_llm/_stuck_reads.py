"""Ends the wait of a thread for a provider, from outside of that thread.

A thread can't be interrupted, but the connection that it reads can be shut down, and then the read returns at once. Each
SDK keeps its socket in another place, and before an answer has begun there is no response to ask for it. But a thread that
waits stands in a method of the socket, or of the object around it, whatever the SDK: its stack shows which one.
"""

from __future__ import annotations

import contextlib
import socket
import sys
from types import FrameType


def end_read(owner: object) -> None:
    """Shut down the connection that a thread waits for on behalf of `owner`, in a method of it that has not returned.

    A thread that does anything else just now (runs code, looks up a name, waits for a lock) is left alone: look again.
    """
    frames = sys._current_frames()  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] documented, in spite of its name
    for frame in frames.values():
        found = _socket_in(frame) if _is_for(frame, owner) else None
        if found is not None:
            with contextlib.suppress(OSError):  # it is down already
                # Not the method of a TLS socket: that one drops what the reading thread is using.
                socket.socket.shutdown(found, socket.SHUT_RDWR)


def _socket_in(frame: FrameType) -> socket.socket | None:
    """The socket whose C code the innermost frame of a thread waits for."""
    holder: object = frame.f_locals.get("self")
    for found in (holder, getattr(holder, "_sock", None)):
        if isinstance(found, socket.socket):
            return found
    return None


def _is_for(frame: FrameType | None, owner: object) -> bool:
    """Does a stack run through a method of `owner`, over a connection that is this call's alone?"""
    while frame is not None:
        module = str(frame.f_globals.get("__name__"))
        if module.endswith(".http2"):  # whoever reads there reads for the calls of others, too
            return False
        if module == type(owner).__module__ and frame.f_locals.get("self") is owner:
            return True
        frame = frame.f_back
    return False
