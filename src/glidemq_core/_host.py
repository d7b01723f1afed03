"""What running jobs need of their worker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from ._chunk_writer import ChunkWriter
from ._client import Client
from ._ledger import LedgerClient
from ._relay import Relay


class Host(Protocol):
    """What a running job needs of its worker."""

    @property
    def client(self) -> Client:
        """The worker's client."""
        ...

    @property
    def root(self) -> str:
        """The queue's root key."""
        ...

    @property
    def queue(self) -> str:
        """The queue's name."""
        ...

    @property
    def name(self) -> str:
        """The worker's name."""
        ...

    @property
    def writer(self) -> ChunkWriter:
        """The one writer of its streams."""
        ...

    @property
    def relay(self) -> Relay:
        """What empties the queue's outbox."""
        ...

    @property
    def limits(self) -> Sequence[Mapping[str, object]]:
        """The limiters of all its jobs' model calls: the worker's own and the queue's."""
        ...

    def ledger(self, name: str) -> LedgerClient:
        """A ledger, kept up by the worker."""
        ...

    def now(self) -> float:
        """Monotonic seconds."""
        ...
