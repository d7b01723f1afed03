"""The one way to the server for code on an event loop.

A call whose reply is lost may have been applied: every mutating function is safe to repeat, so it is repeated here, with
`repeat` set, until it is answered or half a minute has passed.

All clients of a process live on one loop, which owns valkey-glide (see `_bridge`); they may be used from any loop.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final, cast

import msgspec

from . import _failpoints, _tls
from . import _glide_setup as setup
from ._bridge import Resident
from ._library import Library, bundle
from ._listening import BlockingClient, Subscriber
from ._loader import check_server, ensure_loaded
from ._target import Target
from .errors import ConnectionLost, GlideMQError, LibraryError, ServerUnsuitable

logger = logging.getLogger(__name__)

__all__ = [
    "BlockingClient",
    "Client",
    "Subscriber",
    "release_client",
    "shared_client",
    "shared_subscriber",
]

GIVE_UP_AFTER: Final = 30.0
# A call without reply for a whole period of this length is stuck: the client's own time-out should have come before.
_PERIOD: Final = setup.REQUEST_TIMEOUT_MS / 1000 + 2
_CROSSING_MARGIN: Final = 15.0
_FAILURES_BEFORE_RENEWAL: Final = 3
_MISSING_FOR: Final = 5.0
_RELOAD_EVERY: Final = 60.0
_SECOND_LOOK: Final = 0.5
_PAUSES: Final = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
_pack = msgspec.msgpack.Encoder().encode
_running_loop = asyncio.get_running_loop


class _Period:
    """How many calls that began within one period are still open."""

    __slots__ = ("open",)

    def __init__(self) -> None:
        self.open = 0


class Client(Resident):
    """A connection to one server."""

    def __init__(self, target: Target, library: Library | None = None) -> None:
        super().__init__()
        self.target = target
        self._library = library or bundle()
        self._prefix = self._library.prefix
        self._ready: Any = (
            None  # the connection, once it is known to be good and to have the library
        )
        self._is_checked = False
        self._is_closed = False
        self._failures = 0
        self._reloaded_at = -_RELOAD_EVERY
        self._period = _Period()
        self._last_period = _Period()
        self._watch: asyncio.TimerHandle | None = None
        self._renewal: asyncio.Task[None] | None = None
        self.calls = 0
        self.test_args: dict[str, object] = {}

    @property
    def is_cluster(self) -> bool:
        """Does it speak to a cluster?"""
        return self.target.cluster

    @_failpoints.around
    async def call(
        self, name: str, root: str, args: dict[str, object], *, give_up_after: float = GIVE_UP_AFTER
    ) -> Any:
        """Call a function of the library on the slot of `root`.

        Args:
            args: Scalars, texts and lists: packed into the one map that the function reads.
            give_up_after: Seconds for which a lost reply is asked for again.

        Raises:
            ConnectionLost: There was no reply in time; with outcome "unknown" the call may have been applied.
            GlideMQError: The server's answer was an error (see `_glide_setup.translate`).
        """
        self.calls += 1
        if self.test_args:
            args = {**args, **self.test_args}
        glide = self._ready
        if glide is None or self._loop is not _running_loop():
            return await self._call_patiently(name, root, args, give_up_after)
        # The way of nearly all calls: one await and no task, timer or lock of its own.
        period = self._period
        period.open += 1
        try:
            reply = await glide.fcall(self._prefix + name, [root], [_pack(args)])
            self._failures = 0
            return reply
        except Exception as error:  # noqa: BLE001 the client's errors are its own tree; they are told apart below
            first = error
        finally:
            period.open -= 1
        return await self._call_patiently(name, root, args, give_up_after, (glide, first))

    async def command(self, *words: str, near: str | None = None) -> Any:
        """Send one plain command (tried again while the server can't be reached).

        Args:
            near: In a cluster, the key to whose primary it goes; default: where the command's own key leads.
        """

        def send(glide: Any, _is_repeat: bool) -> Awaitable[Any]:
            if near is not None and self.is_cluster:
                return glide.custom_command(list(words), setup.route(near))
            return glide.custom_command(list(words))

        patience = _Patience(GIVE_UP_AFTER, None)
        return await self._at_home(
            lambda: self._persist(send, patience), GIVE_UP_AFTER + _CROSSING_MARGIN
        )

    async def close(self) -> None:
        """Close the connection for good; calls on their way fail."""
        self._is_closed = True
        await super().close()

    def saw_revision(self, revision: int) -> None:
        """A reply has told the revision of the server's library: load again if somebody has put an older one in place."""
        now = time.monotonic()
        if revision >= self._library.revision or now - self._reloaded_at < _RELOAD_EVERY:
            return
        self._reloaded_at = now
        logger.warning(
            "%s has revision %d of the library, this is %d: an older program has loaded its own; loading again",
            self.target,
            revision,
            self._library.revision,
        )
        self._ready = None

    async def _call_patiently(
        self,
        name: str,
        root: str,
        args: dict[str, object],
        give_up_after: float,
        failed: tuple[Any, Exception] | None = None,
    ) -> Any:
        """A call from another loop, without a connection, or after a first try that failed."""

        def send(glide: Any, is_repeat: bool) -> Awaitable[Any]:
            packed = _pack({**args, "repeat": True} if is_repeat else args)
            return glide.fcall(self._prefix + name, [root], [packed])

        patience = _Patience(give_up_after, cast("str | None", args.get("id")))
        return await self._at_home(
            lambda: self._persist(send, patience, failed), give_up_after + _CROSSING_MARGIN
        )

    async def _persist(
        self,
        send: Callable[[Any, bool], Awaitable[Any]],
        patience: _Patience,
        failed: tuple[Any, Exception] | None = None,
    ) -> Any:
        """Send until there is an answer. `failed`: the connection and the error of a try before."""
        patience.is_unknown |= patience.is_sent  # on a loop that was closed before the reply
        while True:
            if failed is not None:
                patience.is_sent = False
                await self._judge(*failed, patience)
            glide: Any = None
            try:
                glide = self._ready or await self._connect()
                patience.is_sent = True
                period = self._period
                period.open += 1
                try:
                    reply = await send(glide, patience.is_unknown)
                finally:
                    period.open -= 1
            except GlideMQError:
                raise
            except Exception as error:  # noqa: BLE001 as in call
                failed = glide, error
                continue
            self._failures = 0
            return reply

    async def _judge(self, glide: Any, error: Exception, patience: _Patience) -> None:
        """Prepare for another try, or raise: the call is not to be repeated, or its time is up."""
        fate = setup.fate_of(error)
        if fate == "final":
            raise setup.translate(error, self._library, self.target) from error
        # What fails before there is a connection was not sent.
        patience.is_unknown |= fate == "unknown" and glide is not None
        if self._is_closed:
            raise ConnectionLost(
                "the client was closed",
                outcome="unknown" if patience.is_unknown else "not_sent",
                id=patience.id,
            ) from error
        if fate == "missing":
            if patience.is_missing_for() > _MISSING_FOR:
                raise LibraryError(
                    f"{self.target} has no such function, and its library is not older than ours: {error}"
                ) from error
            if glide is self._ready:
                self._ready = None  # the next try looks for the library
        if fate == "unreachable" and self.target.tls:
            await self._refuse_bad_tls(error, patience)
        if patience.is_over():
            raise setup.lost(
                error, self.target, is_unknown=patience.is_unknown, id=patience.id
            ) from error
        if fate in ("unknown", "moved") and glide is not None and glide is self._glide:
            await self._count_failure()
        if patience.tries == 1:
            logger.warning("%s: trying again (%s)", self.target, str(error).strip())
        await patience.pause()

    async def _refuse_bad_tls(self, error: Exception, patience: _Patience) -> None:
        """Say it at once if it is for certificates that there is no connection: that does not pass by itself."""
        fault = await _tls.fault(self.target)
        if fault is not None:
            outcome = "unknown" if patience.is_unknown else "not_sent"
            raise ServerUnsuitable(fault, outcome=outcome, id=patience.id) from error

    async def _count_failure(self) -> None:
        self._failures += 1
        if self._failures >= _FAILURES_BEFORE_RENEWAL:
            await self._renew()

    async def _renew(self) -> None:
        """Replace the connection: a half-open one is never replaced by itself, a moved server never followed."""
        self._failures = 0
        logger.warning("connecting to %s anew", self.target)
        await self._drop()

    async def _drop(self) -> None:
        self._ready = None
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        await super()._drop()

    async def _connect(self) -> Any:
        async with self._opening:
            if self._ready is not None:
                return self._ready
            if self._is_closed:
                raise ConnectionLost("the client is closed")
            made = self._glide or await setup.create(self.target)
            try:
                if not self._is_checked:
                    await check_server(made, self.target)
                    self._is_checked = True
                await ensure_loaded(made, setup.package(), self._library, self.target)
            except BaseException as error:
                if made is not self._glide:
                    await made.close()
                elif setup.fate_of(error) == "unknown":
                    await self._drop()
                raise
            self._ready = self._glide = made
            if self._watch is None:
                self._period, self._last_period = _Period(), _Period()
                self._watch = _running_loop().call_later(_PERIOD, self._look)
            return made

    def _look(self) -> None:
        """Once a period: are there calls older than a period? Then replies don't come (see `_bridge`): connect anew."""
        if self._last_period.open:
            # After a long stop of this loop the replies may be here, only not looked at.
            self._watch = _running_loop().call_later(_SECOND_LOOK, self._look_again)
            return
        self._last_period, self._period = self._period, _Period()
        self._watch = _running_loop().call_later(_PERIOD, self._look)

    def _look_again(self) -> None:
        if self._last_period.open:
            logger.warning("%s: no reply to %d calls", self.target, self._last_period.open)
            # Closing fails the calls, as unknown; so they are repeated, on a new connection.
            self._renewal = _running_loop().create_task(self._renew())
        else:
            self._look()


class _Patience:
    """How long one call is tried, and what is known of its earlier tries."""

    def __init__(self, give_up_after: float, id: str | None) -> None:
        self.id = id
        self.is_unknown = False  # an earlier try may have been applied
        self.is_sent = False  # a try is on its way
        self.tries = 0
        self._deadline = time.monotonic() + give_up_after
        self._missing_since: float | None = None

    def is_over(self) -> bool:
        return time.monotonic() >= self._deadline

    def is_missing_for(self) -> float:
        """Seconds since the function was first found missing."""
        now = time.monotonic()
        if self._missing_since is None:
            self._missing_since = now
        return now - self._missing_since

    async def pause(self) -> None:
        await asyncio.sleep(_PAUSES[min(self.tries, len(_PAUSES) - 1)])
        self.tries += 1


class _Shared:
    """The clients of one target in this process, with how many use them."""

    def __init__(self, target: Target) -> None:
        self.client = Client(target)
        self.subscriber = Subscriber(target)
        self.users = 0


_shared: dict[Target, _Shared] = {}
_sharing = threading.Lock()


async def shared_client(target: Target) -> Client:
    """The process's client for a target; give it back with `release_client`."""
    with _sharing:
        shared = _share(target)
        shared.users += 1
        return shared.client


def shared_subscriber(target: Target) -> Subscriber:
    """The process's subscription connection for a target."""
    with _sharing:
        return _share(target).subscriber


def _share(target: Target) -> _Shared:
    if target not in _shared:
        _shared[target] = _Shared(target)
    return _shared[target]


async def release_client(client: Client) -> None:
    """Give a shared client back; the last user closes it."""
    with _sharing:
        shared = _shared.get(client.target)
        if shared is None or shared.client is not client:
            return
        shared.users -= 1
        if shared.users > 0:
            return
        del _shared[client.target]
    await shared.subscriber.close()
    await client.close()


def _after_fork() -> None:
    """The child shares nothing with its parent (see `_bridge` for the rest)."""
    global _sharing
    _sharing = threading.Lock()
    _shared.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
