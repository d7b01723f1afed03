"""Which event loop the connections live on, and the way there from other loops.

valkey-glide has one reader of replies per process, on the loop of its first client; clients on other loops get their
replies by way of that loop, or never if it has ended. So all clients of a process live on one loop, the *owner*: the loop
that made the first call, for as long as it is not closed. Calls from any other loop cross over to it; many calls cross
with one wake-up, and so do their results.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar, cast

from .errors import ConnectionLost

logger = logging.getLogger(__name__)

T = TypeVar("T")

_LOOK_EVERY: Final = 0.5
_CLOSING: Final = 2.0
_PAUSE: Final = 0.02
_lock = threading.Lock()
_owner: asyncio.AbstractEventLoop | None = None
_mailboxes: dict[asyncio.AbstractEventLoop, Mailbox] = {}
_bridges: dict[tuple[asyncio.AbstractEventLoop, asyncio.AbstractEventLoop], _Bridge] = {}


class OwnerGone(Exception):
    """The loop that a call had crossed to is closed, or ending; the call may have been sent."""


def owner() -> asyncio.AbstractEventLoop:
    """The owning loop; the running loop becomes it if there is none (any more)."""
    global _owner
    with _lock:
        if _owner is None or _owner.is_closed():
            _owner = asyncio.get_running_loop()
        return _owner


class Mailbox:
    """Calls functions on a loop, from any thread: all that have come together with one wake-up."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._items: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self._is_due = False

    def post(self, function: Callable[..., object], *args: Any) -> None:
        """Have `function(*args)` called on the loop soon.

        Raises:
            RuntimeError: The loop is closed.
        """
        # Append first, look second: _empty clears the flag before it takes, so nothing is left lying.
        self._items.append((function, args))
        if not self._is_due:
            self._is_due = True
            self._loop.call_soon_threadsafe(self._empty)

    def _empty(self) -> None:
        self._is_due = False
        try:
            for _ in range(len(self._items)):
                function, args = self._items.popleft()
                function(*args)
        finally:
            # One that raised goes to the loop's exception handler; those behind it are not lost.
            if self._items and not self._is_due:
                self._is_due = True
                self._loop.call_soon(self._empty)


def mailbox(loop: asyncio.AbstractEventLoop) -> Mailbox:
    """The mailbox of a loop."""
    with _lock:
        for other in [other for other in _mailboxes if other.is_closed()]:
            del _mailboxes[other]
        return _mailboxes.setdefault(loop, Mailbox(loop))


async def cross(there: asyncio.AbstractEventLoop, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run `work()` on another loop and wait for its result here. Cancelling this cancels that.

    Raises:
        OwnerGone: That loop is closed, or ending.
    """
    here = asyncio.get_running_loop()
    with _lock:
        for key in [key for key in _bridges if key[0].is_closed() or key[1].is_closed()]:
            del _bridges[key]
    to, back = mailbox(there), mailbox(here)
    with _lock:
        bridge = _bridges.setdefault((here, there), _Bridge(here, there, to, back))
    return await bridge.cross(work)


class _Bridge:
    """The crossing from one loop to one other."""

    def __init__(
        self,
        here: asyncio.AbstractEventLoop,
        there: asyncio.AbstractEventLoop,
        to: Mailbox,
        back: Mailbox,
    ) -> None:
        self._here = here
        self._there = there
        self._to = to
        self._back = back
        self._waiting: set[asyncio.Future[Any]] = set()
        self._watch: asyncio.TimerHandle | None = None

    async def cross(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        future: asyncio.Future[T] = self._here.create_future()
        crossing = _Crossing(work, self._back, future)
        try:
            self._to.post(crossing.start)
        except RuntimeError as error:
            raise OwnerGone from error
        self._waiting.add(future)
        if self._watch is None:
            self._watch = self._here.call_later(_LOOK_EVERY, self._look)
        try:
            return await future
        except asyncio.CancelledError:
            if not self._there.is_closed():
                self._to.post(crossing.cancel)
            raise
        finally:
            self._waiting.discard(future)

    def _look(self) -> None:
        """Nobody tells a loop that another one was closed: look for it while calls wait."""
        self._watch = None
        if self._there.is_closed():
            for future in self._waiting:
                if not future.done():
                    future.set_exception(OwnerGone())
        elif self._waiting:
            self._watch = self._here.call_later(_LOOK_EVERY, self._look)


class _Crossing:
    """One call on its way: started and cancelled over there, its result posted back."""

    def __init__(
        self,
        work: Callable[[], Coroutine[Any, Any, T]],
        back: Mailbox,
        future: asyncio.Future[T],
    ) -> None:
        self._work = work
        self._back = back
        self._future = future
        self._task: asyncio.Task[Any] | None = None

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._work())
        self._task.add_done_callback(self._ended)

    def cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def _ended(self, task: asyncio.Task[Any]) -> None:
        try:
            self._back.post(self._deliver, task)
        except RuntimeError:
            # The caller's loop was closed: nobody waits. Looking at the exception marks it as seen.
            if not task.cancelled():
                task.exception()

    def _deliver(self, task: asyncio.Task[Any]) -> None:
        # Nobody here has cancelled it, or the future were done: the other loop is about to end.
        error = OwnerGone() if task.cancelled() else task.exception()
        if self._future.done():
            return
        if error is not None:
            self._future.set_exception(error)
        else:
            self._future.set_result(task.result())


class Resident:
    """What lives on the owning loop, with a connection of valkey-glide, and may be called from any loop."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._glide: Any = None
        self._opening = asyncio.Lock()

    async def _at_home(
        self, work: Callable[[], Coroutine[Any, Any, T]], timeout: float | None = None
    ) -> T:
        """Run `work()` on the owning loop; begin anew there if the owner is a new one. It may run twice, if a loop dies.

        Raises:
            ConnectionLost: The owning loop has not come to an end with it within `timeout` seconds.
        """
        while True:
            home = owner()
            if home is asyncio.get_running_loop():
                if self._loop is not home:
                    await self._move_in(home)
                return await work()
            try:
                async with asyncio.timeout(timeout):
                    return await cross(home, lambda: self._at_home(work))
            except OwnerGone:
                await asyncio.sleep(_PAUSE)  # it may only be about to be closed
            except TimeoutError as error:
                raise ConnectionLost(
                    "the event loop of this process's first call has its connections, and it does not run",
                    outcome="unknown",
                ) from error

    async def _move_in(self, home: asyncio.AbstractEventLoop) -> None:
        """Begin anew on another loop: the connection of the old one can't be taken along."""
        await self._drop()
        self._loop = home
        self._opening = asyncio.Lock()

    async def _drop(self) -> None:
        """Close the connection; the next call makes a new one. It never suspends."""
        glide, self._glide = self._glide, None
        if glide is None:
            return
        if self._loop is not None and self._loop.is_closed():
            # close() tells the calls that wait, which a closed loop refuses; then the connection would stay open.
            cast("dict[str, dict[int, object]]", vars(glide)).get("_pending_futures", {}).clear()
        await glide.close()

    async def close(self) -> None:
        """Close the connection; calls on their way fail."""
        here = asyncio.get_running_loop()
        if self._loop is None or self._loop.is_closed() or self._loop is here:
            await self._drop()
            return
        try:
            await self._at_home(self._drop, _CLOSING)
        except ConnectionLost as error:
            logger.warning("a connection stays open: %s", error)


def _after_fork() -> None:
    """The child has none of its parent's threads, and its parent's connections are not its own."""
    global _owner, _lock
    _lock = threading.Lock()
    _owner = None
    _mailboxes.clear()
    _bridges.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
