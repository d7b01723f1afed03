"""The ledgers that a worker uses, and their upkeep: overdue calls, windows that turn, jobs that fit again."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from ._client import Client
from ._ledger import LedgerClient
from .errors import GlideMQError

logger = logging.getLogger(__name__)

_PERIOD: Final = 1.0


class Ledgers:
    """By name; made when first asked for."""

    def __init__(self, client: Client, root: str) -> None:
        self._client = client
        self._root = root
        self._known: dict[str, LedgerClient] = {}
        self._task: asyncio.Task[None] | None = None

    def __call__(self, name: str) -> LedgerClient:
        """The ledger of that name, which is kept up from now on."""
        if name not in self._known:
            self._known[name] = LedgerClient(self._client, name)
            if self._task is None:
                self._task = asyncio.get_running_loop().create_task(self._keep_up())
        return self._known[name]

    async def begin(self) -> None:
        """Take up those that jobs of this queue are parked on, from before this worker."""
        for raw in await self._client.call("queue_ledgers", self._root, {}):
            self(raw.decode())

    async def close(self) -> None:
        """End the upkeep."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    async def _keep_up(self) -> None:
        while True:
            await asyncio.sleep(_PERIOD)
            for ledger in list(self._known.values()):
                try:
                    more = True
                    while more:
                        done = await ledger.upkeep()
                        await ledger.relay(done.wakes)
                        more = done.more
                except GlideMQError as error:
                    logger.warning("upkeep of ledger %s: %s", ledger.name, error)
