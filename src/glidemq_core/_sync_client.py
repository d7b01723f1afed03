"""The synchronous client: for the heartbeat's own thread."""

from __future__ import annotations

import time
from typing import Any, Final

import msgspec

from . import _failpoints
from . import _glide_setup as setup
from ._library import Library, bundle
from ._target import Target

_PAUSE: Final = 0.05
_pack = msgspec.msgpack.Encoder().encode


class SyncClient:
    """A connection of one thread. The event loop's client loads the library first; this one brings it back."""

    def __init__(self, target: Target, *, timeout: float, library: Library | None = None) -> None:
        # Half a second on a busy machine, which the first beat of a short lease does not have.
        import glide_sync  # noqa: F401  # pyright: ignore[reportUnusedImport]

        self._target = target
        self._timeout_ms = round(timeout * 1000)
        self._library = library or bundle()
        self._glide: Any = None

    @_failpoints.around
    def call(
        self, name: str, root: str, args: dict[str, object], *, give_up_after: float = 2.0
    ) -> Any:
        """Call a function of the library.

        Raises:
            ConnectionLost: No reply within `give_up_after` seconds and one request timeout.
            GlideMQError: The server's answer was an error.
        """
        deadline = time.monotonic() + give_up_after
        while True:
            try:
                reply = self._connected().fcall(self._library.prefix + name, [root], [_pack(args)])
            except Exception as error:
                fate = setup.fate_of(error)
                if fate == "final":
                    raise setup.translate(error, self._library, self._target) from error
                if fate == "missing":
                    self._load()
                elif fate in ("unknown", "moved"):
                    # A half-open connection is never replaced by itself nor follows a failover, and this one carries all leases.
                    self.close()
                if time.monotonic() >= deadline:
                    raise setup.lost(error, self._target, is_unknown=True, id=None) from error
                time.sleep(_PAUSE)
                continue
            return reply

    def _load(self) -> None:
        """Load the library, for its functions have vanished: while all slots run quiet jobs nobody else would."""
        import glide_sync

        try:
            self._connected().function_load(self._library.text)
        except glide_sync.RequestError as error:
            # The loop's client, or another worker, was quicker; never replace what somebody else has loaded.
            if "already exists" not in str(error):
                raise setup.translate(error, self._library, self._target) from error

    def close(self) -> None:
        """Close the connection; the next call makes a new one."""
        glide, self._glide = self._glide, None
        if glide is not None:
            glide.close()

    def _connected(self) -> Any:
        if self._glide is None:
            import glide_sync

            glide_sync.Logger.set_logger_config(glide_sync.LogLevel.OFF)
            options = setup.node_options(self._target, glide_sync)
            options["request_timeout"] = self._timeout_ms
            if self._target.cluster:
                config = glide_sync.GlideClusterClientConfiguration(**options)
                self._glide = glide_sync.GlideClusterClient.create(config)
            else:
                self._glide = glide_sync.GlideClient.create(
                    glide_sync.GlideClientConfiguration(**options)
                )
        return self._glide
