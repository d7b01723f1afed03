"""One run of one job inside a worker: its lease, its place in the worker's books, its unsent chunks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

import msgspec

from ._codec import loads
from ._journal import Journal
from .outcome import Outcome, joint

if TYPE_CHECKING:
    from ._gate import Gate

StopReason: TypeAlias = Literal[
    "cancelled", "lease_lost", "timeout", "idle_timeout", "shutdown", "parked"
]

_NO_OPTIONS: dict[str, Any] = {}

# Is the code that runs here, or on whose behalf it runs, in a thread? A thread can't be ended to be parked.
in_thread: ContextVar[bool] = ContextVar("glidemq_in_thread", default=False)


class Claim(msgspec.Struct, array_like=True, frozen=True):
    """A claimed job as a turn answers it (docs: lua/functions/turn.lua)."""

    id: str
    run: int
    attempt: int
    name: str
    created_at: int
    stalled: int
    lease_ms: int
    is_suspect: bool
    options: str
    commit: str
    place: float
    journal: int  # 0: it has none, 1: it came along, 2: it has to be asked for
    fallback_index: int


class Run:
    """A claim in this worker's hands. Times are monotonic seconds, but for `claimed_ms`: epoch ms by the server."""

    __slots__ = (
        "busy",
        "claim",
        "claimed_ms",
        "data",
        "fence_at",
        "gate",
        "had_company",
        "id",
        "in_flight",
        "is_in_handler",
        "is_started_known",
        "journal",
        "limits",
        "on_stop",
        "open_call",
        "open_waits",
        "options",
        "parked",
        "parks",
        "seq",
        "started_at",
        "stop_reason",
        "task",
        "token",
        "touched_at",
        "unsent",
        "unsent_bytes",
        "updates",
        "updating",
    )

    def __init__(
        self,
        claim: Claim,
        data: bytes,
        token: str,
        *,
        sent_at: float,
        claimed_ms: int,
        journal: list[bytes] | None = None,
    ) -> None:
        self.id = claim.id
        self.claim = claim
        self.data = data
        self.token = token
        self.claimed_ms = claimed_ms
        # From the moment the claim was sent: the server can't have counted the lease from an earlier one.
        self.fence_at = sent_at + claim.lease_ms / 1000
        self.started_at = 0.0
        self.touched_at = 0.0
        self.is_started_known = claim.is_suspect
        # Only its handler may be cancelled: what comes before and after it keeps the worker's books.
        self.is_in_handler = False
        self.options = (
            cast("dict[str, Any]", loads(claim.options)) if claim.options else _NO_OPTIONS
        )
        self.stop_reason: StopReason | None = None
        self.task: asyncio.Task[None] | None = None
        self.seq = 0
        self.open_call = ""  # the model call that began last, while it writes
        self.unsent: list[list[str]] = []
        self.unsent_bytes = 0
        self.in_flight = 0
        self.updates = 0
        # One at a time: one that overtook another would make the server take that for a repeat.
        self.updating = asyncio.Lock()
        self.journal = None if journal is None else Journal(journal)
        self.open_waits: set[str] = set()
        self.busy = 0
        self.gate: Gate | None = None
        # The limiters of its handler.
        self.limits: Sequence[Mapping[str, object]] = ()
        self.parks: list[Outcome] = []
        # Was anything in flight when it asked to be parked? Then its error may be that of a sibling.
        self.had_company = False
        self.on_stop: Callable[[Run], None] | None = None
        self.parked: list[asyncio.Future[None]] = []

    @property
    def key(self) -> str:
        """The run's name in ledgers: job/run.claim (twin of lease.run_key in Lua)."""
        return f"{self.id}/{self.claim.run}.{self.token.partition('-')[0]}"

    def stop(self, reason: StopReason) -> None:
        """Cancel the handler; the reason decides what becomes of the job. The first reason stays, but for a lost lease."""
        if self.stop_reason is None and self.on_stop is not None:
            self.on_stop(self)
        if self.stop_reason is None or reason == "lease_lost":
            self.stop_reason = reason
        # Not at once: a handler's own call may be what learns of it, and it may be over before a cancellation arrives.
        asyncio.get_running_loop().call_soon(self._cancel)

    def _cancel(self) -> None:
        if self.is_in_handler and self.task is not None:
            self.task.cancel()

    @property
    def park(self) -> Outcome | None:
        """What becomes of the job if the run is ended for its parks: the one that ends first by any of them."""
        return joint(self.parks)

    def park_if_idle(self) -> None:
        """End the run for its park, once no step and no model call is in flight."""
        if self.parks and self.busy == 0:
            # Not at once: whoever has just finished something may go on to the call that it was for.
            asyncio.get_running_loop().call_soon(self._park)

    def _park(self) -> None:
        if self.parks and self.busy == 0 and self.stop_reason is None:
            self.stop("parked")

    def let_go(self) -> None:
        """The run has ended: end what its handler left waiting."""
        for future in self.parked:
            future.cancel()
