"""Adding: adds that are in flight together share a call; a lone add leaves at once."""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from typing import Any, Final

from ._client import Client

_MAX_JOBS: Final = 128
_MAX_BYTES: Final = 1_048_576
_MAX_FLIGHTS: Final = 2


class Adder:
    """Sends new jobs (wire form, see `options.to_wire`) to one queue."""

    def __init__(self, client: Client, root: str) -> None:
        self._client = client
        self._root = root
        self._waiting: deque[tuple[dict[str, Any], asyncio.Future[str]]] = deque()
        self._flights: set[asyncio.Task[None]] = set()

    async def add(self, wire: dict[str, Any]) -> str:
        """Add one job; answers "a" added, "d" duplicate or "r" added by an earlier try of the same call."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[str] = loop.create_future()
        self._waiting.append((wire, future))
        if len(self._flights) < _MAX_FLIGHTS:
            flight = loop.create_task(self._flight())
            self._flights.add(flight)
            flight.add_done_callback(self._flights.discard)
        return await future

    async def add_many(self, wires: list[dict[str, Any]]) -> str:
        """Add many jobs in order; answers a letter for each. Two calls are on their way at a time."""
        gate = asyncio.Semaphore(_MAX_FLIGHTS)
        batches = _batches(wires)

        async def send(batch: list[dict[str, Any]]) -> str:
            async with gate:
                return await self._send(batch)

        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(send(batch)) for batch in batches]
        except ExceptionGroup as group:
            # Callers catch errors of ours, not groups of them; one is as good as the others.
            first = group.exceptions[0]
            raise first from first.__cause__
        return "".join(task.result() for task in tasks)

    async def drain(self) -> None:
        """Wait for the adds that are on their way."""
        while self._flights:
            await asyncio.wait(self._flights)

    async def _flight(self) -> None:
        while self._waiting:
            batch = self._take()
            try:
                verdicts = await self._send([wire for wire, _ in batch])
            except BaseException as error:  # whatever it is, each caller of this batch is told
                for _, future in batch:
                    if not future.done():
                        future.set_exception(error)
                if isinstance(error, asyncio.CancelledError):
                    raise
                continue
            for (_, future), verdict in zip(batch, verdicts, strict=True):
                if not future.done():
                    future.set_result(verdict)

    def _take(self) -> list[tuple[dict[str, Any], asyncio.Future[str]]]:
        batch: list[tuple[dict[str, Any], asyncio.Future[str]]] = []
        size = 0
        while self._waiting and len(batch) < _MAX_JOBS and size < _MAX_BYTES:
            batch.append(self._waiting.popleft())
            size += len(batch[-1][0].get("data", ""))
        return batch

    async def _send(self, wires: list[dict[str, Any]]) -> str:
        args: dict[str, object] = {
            "jobs": wires,
            "nonce": secrets.token_hex(8),
            "id": wires[0]["id"],
        }
        reply = await self._client.call("job_add", self._root, args)
        return reply.decode()


def _batches(wires: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    batches: list[list[dict[str, Any]]] = []
    size = _MAX_BYTES
    for wire in wires:
        if size >= _MAX_BYTES or len(batches[-1]) >= _MAX_JOBS:
            batches.append([])
            size = 0
        batches[-1].append(wire)
        size += len(wire.get("data", ""))
    return batches
