"""The one way to the server for code on the event loop. Only this module and `_sync_client` import valkey-glide.

A call whose reply is lost may have been applied: every mutating function is safe to repeat, so it is repeated here, with
`repeat` set, until it is answered or half a minute has passed.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable
from typing import Any, Final, cast

import msgspec

from . import _failpoints
from . import _glide_setup as setup
from ._library import Library, bundle
from ._target import Target
from .errors import ConnectionLost, GlideMQError, LibraryError, ServerUnsuitable

logger = logging.getLogger(__name__)

GIVE_UP_AFTER: Final = 30.0
_FAILURES_BEFORE_RENEWAL: Final = 3
_SUBSCRIBE_MS: Final = 1000
_PAUSES: Final = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
_pack = msgspec.msgpack.Encoder().encode


class Client:
    """A connection to one server, for one event loop."""

    def __init__(self, target: Target, library: Library | None = None) -> None:
        self.target = target
        self._library = library or bundle()
        self._prefix = self._library.prefix
        self._glide: Any = None
        self._opening: asyncio.Lock = asyncio.Lock()
        self._failures = 0
        self._is_checked = False
        self._is_closed = False
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
        try:
            glide = self._glide or await self._connect()
            reply = await glide.fcall(self._prefix + name, [root], [_pack(args)])
        except GlideMQError:
            raise
        except Exception as error:  # noqa: BLE001 the client's errors are its own tree; they are told apart below
            return await self._repeat(name, root, args, error, give_up_after)
        self._failures = 0
        return reply

    async def command(self, *words: str, near: str | None = None) -> Any:
        """Send one plain command (tried again while the server can't be reached).

        Args:
            near: In a cluster, the key to whose primary it goes; default: where the command's own key leads.
        """
        deadline = time.monotonic() + GIVE_UP_AFTER
        tries = 0
        while True:
            try:
                glide = self._glide or await self._connect()
                route = _route(near) if near is not None and self.is_cluster else None
                reply = await glide.custom_command(list(words), *([route] if route else []))
            except GlideMQError:
                raise
            except Exception as error:  # noqa: BLE001 as in call
                await self._judge(error, tries, deadline, applied_id=None)
                tries += 1
                continue
            self._failures = 0
            return reply

    async def close(self) -> None:
        """Close the connection; calls on their way fail."""
        self._is_closed = True
        glide, self._glide = self._glide, None
        if glide is not None:
            await glide.close()

    async def _repeat(
        self,
        name: str,
        root: str,
        args: dict[str, object],
        error: BaseException,
        give_up_after: float,
    ) -> Any:
        deadline = time.monotonic() + give_up_after
        tries = 0
        while True:
            fate = await self._judge(
                error, tries, deadline, applied_id=cast("str | None", args.get("id"))
            )
            if fate == "unknown":
                args = {**args, "repeat": True}
            tries += 1
            try:
                glide = self._glide or await self._connect()
                reply = await glide.fcall(self._prefix + name, [root], [_pack(args)])
            except GlideMQError:
                raise
            except Exception as again:  # noqa: BLE001 as in call
                error = again
                continue
            self._failures = 0
            return reply

    async def _judge(
        self, error: Exception, tries: int, deadline: float, *, applied_id: str | None
    ) -> str:
        """Prepare for another try, or raise: the call is not to be repeated, or its time is up."""
        fate = setup.fate_of(error)
        if fate == "final":
            raise setup.translate(error, self._library, self.target) from error
        if self._is_closed:
            raise ConnectionLost(
                "the client was closed", outcome="unknown", id=applied_id
            ) from error
        if time.monotonic() >= deadline:
            raise ConnectionLost(
                f"no reply from {self.target} ({type(error).__name__}: {error})",
                outcome="not_sent" if fate == "unavailable" else "unknown",
                id=applied_id,
            ) from error
        if fate == "missing":
            await self._load()
            return fate
        if fate == "unknown":
            self._failures += 1
            if self._failures >= _FAILURES_BEFORE_RENEWAL:
                await self._renew()
        await asyncio.sleep(_PAUSES[min(tries, len(_PAUSES) - 1)])
        return fate

    async def _renew(self) -> None:
        """Replace the connection: a half-open one is never replaced by itself, a moved server never followed."""
        self._failures = 0
        old, self._glide = self._glide, None
        if old is not None:
            logger.warning("connecting to %s anew", self.target)
            await old.close()

    async def _connect(self) -> Any:
        async with self._opening:
            if self._glide is not None:
                return self._glide
            if self._is_closed:
                raise ConnectionLost("the client is closed")
            glide = await _create(self.target)
            if not self._is_checked:
                await self._check(glide)
                await _ensure_loaded(glide, self._library, self.target)
                self._is_checked = True
            self._glide = glide
            return glide

    async def _check(self, glide: Any) -> None:
        """Refuse a server that would throw jobs away."""
        reply = await glide.custom_command(["INFO", "memory"])
        texts = reply.values() if isinstance(reply, dict) else [reply]
        for text in cast("list[bytes | str]", texts):
            words = text.decode() if isinstance(text, bytes) else text
            policy = next(
                (
                    line.partition(":")[2]
                    for line in words.splitlines()
                    if line.startswith("maxmemory_policy:")
                ),
                "",
            )
            if policy and policy != "noeviction" and not self.target.allow_eviction:
                raise ServerUnsuitable(
                    f"{self.target} has maxmemory-policy {policy}: at its memory limit it would silently drop jobs. "
                    "Set `maxmemory-policy noeviction` on the server (or add ?allow_eviction=true to the URL)."
                )

    async def _load(self) -> None:
        async with self._opening:
            if self._glide is not None:
                await _ensure_loaded(self._glide, self._library, self.target)


async def _create(target: Target) -> Any:
    import glide

    _silence(glide)
    options = setup.node_options(target, glide)
    if target.cluster:
        return await glide.GlideClusterClient.create(
            glide.GlideClusterClientConfiguration(**options)
        )
    return await glide.GlideClient.create(glide.GlideClientConfiguration(**options))


def _route(key: str) -> Any:
    """To the primary of a key's slot."""
    import glide

    return glide.SlotKeyRoute(glide.SlotType.PRIMARY, key)


def _silence(glide: Any) -> None:
    """The client logs to stdout by itself; our own warnings say what matters."""
    glide.Logger.set_logger_config(glide.LogLevel.OFF)


async def _ensure_loaded(glide: Any, library: Library, target: Target) -> None:
    """Load the library on every primary where it is missing or older."""
    import glide as package

    listing = await _list(glide, library, target)
    for address, description in listing.items():
        if not library.should_replace(description):
            continue
        try:
            if target.cluster:
                host, _, port = address.rpartition(":")
                route = package.ByAddressRoute(host, int(port))
                await glide.function_load(
                    library.text, replace=description is not None, route=route
                )
            else:
                await glide.function_load(library.text, replace=description is not None)
        except package.RequestError as error:
            # Somebody else was quicker; what he loaded is read again by the next call that misses a function.
            if "already exists" not in str(error):
                raise LibraryError(
                    f"the function library can't be loaded: {library.locate(str(error))}"
                ) from error
        logger.info("loaded %s revision %d", library.name, library.revision)


async def _list(glide: Any, library: Library, target: Target) -> dict[str, str | None]:
    """Per primary, the description of the library it has."""
    if target.cluster:
        import glide as package

        reply = await glide.function_list(library.name, False, package.AllPrimaries())
        by_node = cast("dict[bytes, Any]", reply)
        return {_text(node): _description(entries, library) for node, entries in by_node.items()}
    return {"": _description(await glide.function_list(library.name), library)}


def _description(entries: Any, library: Library) -> str | None:
    for entry in entries:
        facts = {_text(key): value for key, value in entry.items()}
        for function in facts["functions"]:
            about = {_text(key): value for key, value in function.items()}
            if _text(about["name"]) == f"{library.prefix}source":
                return _text(about["description"] or b"")
    return None


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value


class BlockingClient:
    """A client of its own for blocking pops: while one waits, nothing else travels on its connection."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._glide: Any = None

    async def pop(self, keys: list[str], seconds: float) -> tuple[str, bytes] | None:
        """Wait for an item of one of the lists; None after `seconds` (above 0).

        Raises:
            ConnectionLost: The connection broke; the next call makes a new one.
        """
        try:
            if self._glide is None:
                self._glide = await _create(self._target)
            # The deadline is the client's own; this one is for the case that the client itself is stuck.
            async with asyncio.timeout(seconds + setup.REQUEST_TIMEOUT_MS / 1000):
                reply = await self._glide.blpop(keys, seconds)
        except asyncio.CancelledError:
            # The wait goes on at the server and would swallow the next item: end the connection.
            await self.close()
            raise
        except Exception as error:
            await self.close()
            raise ConnectionLost(f"waiting on {self._target} failed: {error}") from error
        return None if reply is None else (_text(reply[0]), reply[1])

    async def close(self) -> None:
        """Close the connection."""
        glide, self._glide = self._glide, None
        if glide is not None:
            await glide.close()


class Subscriber:
    """One subscription connection of a process to one server; channels come and go on it."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._glide: Any = None
        self._callbacks: dict[str, list[Callable[[str, bytes], None]]] = {}
        self._opening = asyncio.Lock()

    async def add(self, channel: str, callback: Callable[[str, bytes], None]) -> None:
        """Have `callback(channel, message)` called on the loop for every message from now on.

        Returns when the server has confirmed it, or does not answer; after an outage the client subscribes again by
        itself.
        """
        import glide

        self._callbacks.setdefault(channel, []).append(callback)
        async with self._opening:
            if self._glide is None:
                self._glide = await self._create()
        subscribe = self._glide.ssubscribe if self._target.cluster else self._glide.subscribe
        try:
            await subscribe({channel}, _SUBSCRIBE_MS)
        except glide.GlideError as error:
            logger.warning("no news from %s yet: %s", self._target, error)

    async def remove(self, channel: str, callback: Callable[[str, bytes], None]) -> None:
        """Stop calling `callback`."""
        callbacks = self._callbacks.get(channel, [])
        if callback in callbacks:
            callbacks.remove(callback)
        if not callbacks:
            self._callbacks.pop(channel, None)
            if self._glide is not None:
                unsubscribe = (
                    self._glide.sunsubscribe_lazy
                    if self._target.cluster
                    else self._glide.unsubscribe_lazy
                )
                await unsubscribe({channel})
        if not self._callbacks:
            await self.close()

    async def close(self) -> None:
        """Close the connection."""
        glide, self._glide = self._glide, None
        if glide is not None:
            await glide.close()

    async def _create(self) -> Any:
        import glide

        _silence(glide)
        options = setup.node_options(self._target, glide)
        if self._target.cluster:
            config = glide.GlideClusterClientConfiguration
            subscriptions = config.PubSubSubscriptions({}, self._on_message, None)
            return await glide.GlideClusterClient.create(
                config(**options, pubsub_subscriptions=subscriptions)
            )
        config = glide.GlideClientConfiguration
        subscriptions = config.PubSubSubscriptions({}, self._on_message, None)
        return await glide.GlideClient.create(config(**options, pubsub_subscriptions=subscriptions))

    def _on_message(self, message: Any, _context: Any) -> None:
        channel = _text(message.channel)
        for callback in self._callbacks.get(channel, ()):
            callback(channel, message.message)


class _Shared:
    """The clients of one (process, loop, target), with how many use them."""

    def __init__(self, target: Target) -> None:
        self.client = Client(target)
        self.subscriber = Subscriber(target)
        self.users = 0


_shared: dict[tuple[int, asyncio.AbstractEventLoop, Target], _Shared] = {}


def _key(target: Target) -> tuple[int, asyncio.AbstractEventLoop, Target]:
    for key in [key for key in _shared if key[1].is_closed() or key[0] != os.getpid()]:
        del _shared[key]
    return os.getpid(), asyncio.get_running_loop(), target


async def shared_client(target: Target) -> Client:
    """The client of this loop for a target; give it back with `release_client`."""
    shared = _shared.setdefault(_key(target), _Shared(target))
    shared.users += 1
    return shared.client


def shared_subscriber(target: Target) -> Subscriber:
    """The subscription connection of this loop for a target."""
    return _shared.setdefault(_key(target), _Shared(target)).subscriber


async def release_client(client: Client) -> None:
    """Give a shared client back; the last user closes it."""
    for key, shared in list(_shared.items()):
        if shared.client is client:
            shared.users -= 1
            if shared.users <= 0:
                del _shared[key]
                await shared.subscriber.close()
                await client.close()
