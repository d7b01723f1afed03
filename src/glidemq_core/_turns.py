"""A worker's conversation with its queue: numbered turns, each safe to repeat."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, cast

import msgspec

from ._client import Client
from ._codec import loads
from ._run import Claim, Run
from ._units import to_ms
from .errors import ConnectionLost

logger = logging.getLogger(__name__)

MAX_OUTCOMES: Final = 128
MAX_WANT: Final = 128
_REMEMBERED: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnSettings:
    """What a worker says in every turn. `lease` in seconds; keep texts as `options.keep_text` makes them."""

    worker: str
    lease: float
    max_stalled: int
    keep_completed: str | None = None
    keep_failed: str | None = None
    dead_letter: str | None = None


class _Header(msgspec.Struct, array_like=True):
    codes: str
    token: str
    claims: list[Claim]
    next_ms: int
    more: int
    revision: int
    outbox: int = 0
    limits: int = -1
    now: int = 0


_header = msgspec.msgpack.Decoder(_Header)


@dataclass(frozen=True, slots=True)
class TurnReply:
    """What a turn answered: a letter per outcome, the new runs, seconds until something is due (None: nothing known)."""

    codes: str
    runs: list[Run]
    next_in: float | None
    more: bool
    has_outbox: bool = False


@dataclass(slots=True)
class Turns:
    """Sends turns until they are answered."""

    client: Client
    root: str
    settings: TurnSettings
    number: int = 0
    nonce: str = field(default_factory=lambda: secrets.token_hex(4))
    # The limiters of all jobs of the queue, and the version of that list.
    limits: Sequence[Mapping[str, object]] = ()
    limits_version: int = 0
    _open: set[int] = field(default_factory=set[int])
    _answered: asyncio.Event = field(default_factory=asyncio.Event)

    async def take(
        self, outcomes: list[list[object]], started: list[list[object]], *, want: int, suspects: int
    ) -> TurnReply:
        """Hand in outcomes and claim up to `want` jobs.

        A lost reply is asked for again, with the same number, until it comes: the server answers a repeated turn as
        it did the first time.
        """
        # The server remembers the last few turns: none may run further ahead of one that still waits for its answer.
        while self._open and self.number - min(self._open) >= _REMEMBERED - 1:
            self._answered.clear()
            await self._answered.wait()
        self.number += 1
        number = self.number
        self._open.add(number)
        try:
            return await self._send(self._args(outcomes, started, want=want, suspects=suspects))
        finally:
            self._open.discard(number)
            self._answered.set()

    def _args(
        self, outcomes: list[list[object]], started: list[list[object]], *, want: int, suspects: int
    ) -> dict[str, object]:
        args: dict[str, object] = {
            "worker": self.settings.worker,
            "turn": self.number,
            "nonce": self.nonce,
            "want": want,
            "lease_ms": to_ms(self.settings.lease),
            "suspects": suspects,
            "max_stalled": self.settings.max_stalled,
            "done": outcomes,
            "started": started,
        }
        for name in ("keep_completed", "keep_failed", "dead_letter"):
            value = getattr(self.settings, name)
            if value is not None:
                args[name] = value
        return args

    async def _send(self, args: dict[str, object]) -> TurnReply:
        while True:
            sent_at = time.monotonic()
            try:
                reply = await self.client.call("turn", self.root, args)
            except ConnectionLost as error:
                logger.warning("worker %s: %s", self.settings.worker, error)
                args["repeat"] = True
                # The client has tried for half a minute; the pause keeps a refused connection from spinning.
                await asyncio.sleep(0.25)
                continue
            header = _header.decode(reply[0])
            self.client.saw_revision(header.revision)
            if header.limits not in (-1, self.limits_version):
                await self._learn_limits()
            return _read(header, reply[1:], sent_at)

    async def _learn_limits(self) -> None:
        """Before the runs of a turn start: other limits than those that are known hold for the queue."""
        version, text = await self.client.call("queue_limits", self.root, {})
        self.limits = cast("list[Mapping[str, object]]", loads(text) if text else [])
        self.limits_version = version


def _read(header: _Header, payloads: list[Any], sent_at: float) -> TurnReply:
    """Behind the header: the data of each claim, then the journals of those that brought one."""
    token, claims = header.token, header.claims
    data_of, journals = payloads[: len(claims)], iter(payloads[len(claims) :])
    runs = [
        Run(
            claim,
            data,
            token,
            sent_at=sent_at,
            claimed_ms=header.now,
            journal=next(journals) if claim.journal == 1 else None,
        )
        for claim, data in zip(claims, data_of, strict=True)
    ]
    next_in = header.next_ms / 1000 if header.next_ms > 0 else None
    return TurnReply(header.codes, runs, next_in, bool(header.more), bool(header.outbox))
