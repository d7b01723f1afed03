"""What a queue holds while it is open: made at the first call, so that making a Queue costs nothing."""

from __future__ import annotations

import asyncio
import contextlib

from . import _keys
from ._adder import Adder
from ._bridge import OwnerGone, cross
from ._client import Client, Subscriber, release_client, shared_client, shared_subscriber
from ._hub import Hub
from ._target import Target, resolve


class Parts:
    """What it holds on one event loop."""

    def __init__(self, client: Client, subscriber: Subscriber, root: str) -> None:
        self.client = client
        self.adder = Adder(client, root)
        self.hub = Hub(client, subscriber, root, _keys.news(root))

    async def close(self) -> None:
        """Let adds on their way arrive, end readers, give back the client."""
        await self.adder.drain()
        await self.hub.close()
        await release_client(self.client)


class Opened:
    """The parts on every loop that uses the queue: in threads side by side, or one loop after the other."""

    def __init__(self, connection: str | Target | None, root: str) -> None:
        self._connection = connection
        self._root = root
        self._parts: dict[asyncio.AbstractEventLoop, Parts] = {}

    async def here(self) -> Parts:
        """The parts on the running loop."""
        here = asyncio.get_running_loop()
        return self._parts.get(here) or await self._open(here)

    async def _open(self, here: asyncio.AbstractEventLoop) -> Parts:
        target = resolve(self._connection)
        left = [self._parts.pop(loop) for loop in list(self._parts) if loop.is_closed()]
        client = await shared_client(target)  # never suspends, so nobody else has opened meanwhile
        opened = self._parts[here] = Parts(client, shared_subscriber(target), self._root)
        for parts in left:
            await release_client(parts.client)
        return opened

    async def close(self) -> None:
        """Close them on every loop; the next call opens again."""
        opened, self._parts = self._parts, {}
        for loop, parts in opened.items():
            if loop is asyncio.get_running_loop():
                await parts.close()
            elif loop.is_closed():
                await release_client(parts.client)
            else:
                with contextlib.suppress(OwnerGone):
                    await cross(loop, parts.close)
