"""Is what a queue left on a server in order? For tests that look at the server without a client."""

from __future__ import annotations

from typing import Any, Protocol

from glidemq_core.fsck import fsck_through


class Server(Protocol):
    """A server, or the node of a cluster that holds the queue."""

    def cmd(self, *words: str | bytes | float) -> Any: ...


def fsck(server: Server, queue: str, *, now: int | None = None) -> list[str]:
    """A line per problem found; none means that all is well.

    Args:
        now: The instant to compare deadlines with, epoch milliseconds. Default: the server's clock.
    """

    async def read(*words: str) -> Any:
        return server.cmd(*words)

    # Nothing in there waits for an event loop, so it ends at its first step, inside or outside of one.
    steps = fsck_through(read, queue, now=now)
    try:
        steps.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("a blocking read can't wait")
