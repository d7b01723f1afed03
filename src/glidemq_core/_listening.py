"""What waits for the server: blocking pops, and subscriptions. Each has a connection of its own."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Final

from . import _glide_setup as setup
from ._bridge import Resident, mailbox
from ._target import Target
from .errors import ConnectionLost

logger = logging.getLogger(__name__)

Callback = Callable[[str, bytes], None]

_MARGIN: Final = 15.0
_SUBSCRIBE_MS: Final = 1000
_running_loop = asyncio.get_running_loop


class BlockingClient(Resident):
    """A client of its own for blocking pops: while one waits, nothing else travels on its connection."""

    def __init__(self, target: Target) -> None:
        super().__init__()
        self._target = target

    async def pop(self, keys: list[str], seconds: float) -> tuple[str, bytes] | None:
        """Wait for an item of one of the lists; None after `seconds` (above 0).

        Raises:
            ConnectionLost: The connection broke; the next call makes a new one.
        """
        return await self._at_home(lambda: self._pop(keys, seconds), seconds + _MARGIN)

    async def _pop(self, keys: list[str], seconds: float) -> tuple[str, bytes] | None:
        try:
            if self._glide is None:
                self._glide = await setup.create(self._target)
            # The deadline is the client's own; this one is for the case that the client itself is stuck.
            async with asyncio.timeout(seconds + setup.REQUEST_TIMEOUT_MS / 1000):
                reply = await self._glide.blpop(keys, seconds)
        except asyncio.CancelledError:
            # The wait goes on at the server and would swallow the next item: end the connection.
            await self._drop()
            raise
        except Exception as error:
            await self._drop()
            raise ConnectionLost(
                f"waiting on {self._target} failed: {error}", outcome="unknown"
            ) from error
        return None if reply is None else (_text(reply[0]), reply[1])


class Subscriber(Resident):
    """One subscription connection of a process to one server; channels come and go on it."""

    def __init__(self, target: Target) -> None:
        super().__init__()
        self._target = target
        self._callbacks: dict[str, list[tuple[Callback, asyncio.AbstractEventLoop]]] = {}

    async def add(self, channel: str, callback: Callback) -> None:
        """Have `callback(channel, message)` called on this loop for every message from now on.

        Returns when the server has confirmed it, or does not answer; after an outage the client subscribes again by
        itself.
        """
        self._callbacks.setdefault(channel, []).append((callback, _running_loop()))
        await self._at_home(lambda: self._subscribe({channel}), _MARGIN)

    async def remove(self, channel: str, callback: Callback) -> None:
        """Stop calling `callback` on this loop."""
        entries = self._callbacks.get(channel, [])
        if (callback, _running_loop()) in entries:
            entries.remove((callback, _running_loop()))
        if entries:
            return
        self._callbacks.pop(channel, None)
        await self._at_home(lambda: self._unsubscribe({channel}), _MARGIN)

    async def _subscribe(self, channels: set[str]) -> None:
        async with self._opening:
            if self._glide is None:
                self._glide = await setup.create(self._target, self._on_message)
                channels = set(self._callbacks)  # all, in case they were on a loop that is gone
            subscribe = self._glide.ssubscribe if self._target.cluster else self._glide.subscribe
        try:
            await subscribe(channels, _SUBSCRIBE_MS)
        except setup.package().GlideError as error:
            logger.warning("no news from %s yet: %s", self._target, error)

    async def _unsubscribe(self, channels: set[str]) -> None:
        if not self._callbacks:
            await self._drop()
        elif self._glide is not None:
            lazily = self._glide
            await (lazily.sunsubscribe_lazy if self._target.cluster else lazily.unsubscribe_lazy)(
                channels
            )

    def _on_message(self, message: Any, _context: Any) -> None:
        channel = _text(message.channel)
        here = _running_loop()
        for entry in list(self._callbacks.get(channel, ())):
            callback, loop = entry
            if loop is here:
                callback(channel, message.message)
            elif loop.is_closed():
                self._callbacks[channel].remove(entry)
            else:
                mailbox(loop).post(callback, channel, message.message)


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
