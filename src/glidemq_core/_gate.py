"""What a run's paid calls pass: the budgets and limiters of its job, reserved before the spend, settled after it.

A call that does not fit fails the job, waits a little, or parks the job without holding anything, as its budget or
limiter says.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final

from ._keys import call_id
from ._ledger import (
    Admitted,
    LedgerClient,
    Outcome,
    OverBudget,
    Refusal,
    Settled,
    TurnedAway,
    Unpriced,
    Waiter,
)
from ._run import in_thread
from ._waiting import Waiting
from .errors import LeaseLost
from .outcome import Delayed

if TYPE_CHECKING:
    from ._host import Host
    from ._run import Run

_SHORT_WAIT: Final = 5.0
_START_TTL: Final = 120.0
_MARGIN: Final = 60.0
_GRANT_TTL: Final = 86_000.0


class Gate:
    """The ledger side of one run.

    Attributes:
        open_calls: Calls that are reserved, or may be, and not settled.
    """

    def __init__(self, run: Run, host: Host) -> None:
        self._run = run
        self._host = host
        self._start_call: str | None = None
        self.open_calls: set[str] = set()
        self._unanswered: set[str] = set()
        self._was_booked_blindly = False
        self._was_booked_unpriced = False
        self._unsettled: dict[str, Callable[[], Awaitable[Settled]]] = {}
        # A job that names any of its ledger has told its queue so.
        self._is_known = bool(run.options.get("budgets") or run.options.get("limits"))

    @property
    def is_closed_to(self) -> bool:
        """Has the job budgets or limiters: of its own, of its handler, its worker or its queue?"""
        return bool(self._run.options.get("budgets")) or bool(self._limiters(()))

    @property
    def ledger(self) -> LedgerClient:
        """The job's ledger."""
        return self._host.ledger(self._run.options.get("ledger", "main"))

    def _limiters(self, more: Sequence[Mapping[str, object]]) -> list[Mapping[str, object]]:
        """All that a call passes, each name once: what is nearer to the call comes first."""
        run = self._run
        limiters = [*more, *run.options.get("limits", ()), *run.limits, *self._host.limits]
        return list({conf["name"]: conf for conf in reversed(limiters)}.values())

    async def start(self) -> None:
        """The start gate: a job with an estimate does not start before there is room for it, others not before there is
        any. A job that has begun something may end it: only its calls are asked for.
        """
        if not self.is_closed_to:
            return
        estimate = self._run.options.get("estimate")
        if estimate:
            call = f"{self._run.key}/start"
            tokens = {"input": estimate["tokens"]} if estimate.get("tokens") else {}
            costs = {"total": estimate["cost"]} if estimate.get("cost") else {}
            await self.reserve(call, tokens=tokens, costs=costs, ttl=_START_TTL, sent=False)
            self._start_call = call
        elif not self._run.claim.journal:
            await self._look(tokens={"input": 1}, costs={"total": 1}, limiters=self._limiters(()))

    async def stop_if_overspent(self) -> None:
        """After use that nobody had reserved: go on only if no budget is past its cap, or can't know whether it is.

        Raises:
            BudgetExceeded: One that says "fail" is.
            CostUnknown: One caps money, and it was not said what that use has cost.
        """
        if self._was_booked_blindly:
            await self._look(tokens={}, costs={}, limiters=(), sent=self._was_booked_unpriced)

    async def _look(
        self,
        *,
        tokens: Mapping[str, int],
        costs: Mapping[str, int],
        limiters: Sequence[Mapping[str, object]],
        sent: bool = False,
    ) -> None:
        while True:
            verdict = await self.ledger.reserve(
                f"{self._run.key}/look",
                tokens=tokens,
                costs=costs,
                ttl=_MARGIN,
                budgets=self._run.options.get("budgets", ()),
                limiters=limiters,
                sent=sent,
                ticket=self._run.id,
                waiter=Waiter(queue_root=self._host.root, job=self._run.id),
                look=True,
            )
            if isinstance(verdict, Admitted):
                return
            await self._wait_for_room(verdict)

    async def charge(self, call: str, tokens: Mapping[str, int]) -> None:
        """Tell the job's limiters what was used."""
        limiters = self._limiters(())
        if limiters:
            await self.ledger.charge(call, tokens=tokens, limiters=limiters)

    async def reserve(
        self,
        call: str,
        *,
        tokens: Mapping[str, int],
        costs: Mapping[str, int],
        ttl: float,
        limiters: Sequence[Mapping[str, object]] = (),
        sent: bool = True,
        may_park: bool = True,
    ) -> None:
        """Set aside what a call may use. Returns when it may go ahead.

        Args:
            ttl: The call's own time limit in seconds.
            limiters: Further ones, beside those of the job.
            may_park: False: a budget that says "pause" refuses, too.

        Raises:
            BudgetExceeded: A budget that says "fail" leaves too little; its job fails at once.
            CostUnknown: A budget caps money, and `costs` names none; its job fails at once.
        """
        await self._end_start()
        if not self._is_known:
            await self._note_ledger()
        waiter = Waiter(queue_root=self._host.root, job=self._run.id)
        while True:
            # Cancelled, or without an answer, it may be reserved all the same, and was never sent.
            self.open_calls.add(call)
            self._unanswered.add(call)
            verdict = await self.ledger.reserve(
                call_id(self._run.id, call),
                tokens=tokens,
                costs=costs,
                ttl=ttl + _MARGIN,
                budgets=self._run.options.get("budgets", ()),
                limiters=self._limiters(limiters),
                sent=sent,
                ticket=self._run.id,
                waiter=waiter if may_park else None,
            )
            self._unanswered.discard(call)
            if not isinstance(verdict, Admitted):
                self.open_calls.discard(call)
            if isinstance(verdict, Admitted):
                return
            if isinstance(verdict, OverBudget) and not may_park:
                raise verdict.error()
            await self._wait_for_room(verdict)

    async def try_reserve(
        self, call: str, *, tokens: Mapping[str, int], costs: Mapping[str, int]
    ) -> bool:
        """Set something aside in the job's budgets until the run ends; False if one of them has no room."""
        self.open_calls.add(call)
        self._unanswered.add(call)
        verdict = await self.ledger.reserve(
            call,
            tokens=tokens,
            costs=costs,
            ttl=_GRANT_TTL,
            budgets=self._run.options.get("budgets", ()),
            sent=False,
        )
        self._unanswered.discard(call)
        if not isinstance(verdict, Admitted):
            self.open_calls.discard(call)
        return isinstance(verdict, Admitted)

    async def extend(
        self, call: str, *, tokens: Mapping[str, int], costs: Mapping[str, int], ttl: float
    ) -> None:
        """Raise an open reservation to these totals: the next slice of a stream.

        Raises:
            BudgetExceeded: There is no room for it; the call is to be ended.
        """
        if call not in self.open_calls:
            return
        name = call_id(self._run.id, call)
        verdict = await self.ledger.extend(name, tokens=tokens, costs=costs, ttl=ttl + _MARGIN)
        if not isinstance(verdict, Admitted):
            raise verdict.error()

    async def settle(
        self,
        call: str,
        *,
        tokens: Mapping[str, int],
        costs: Mapping[str, int],
        outcome: Outcome = "none",
        retry_after: float = 0.0,
        remaining: Mapping[str, int] | None = None,
        unused: bool = False,
    ) -> None:
        """Replace what was reserved by what was used; the first settle of a call counts."""
        if call not in self.open_calls and (unused or not self._run.options.get("budgets")):
            return
        if call not in self.open_calls:
            self._was_booked_blindly = True
            self._was_booked_unpriced |= any(tokens.values()) and not costs
        self.open_calls.discard(call)
        self._unsettled[call] = partial(
            self.ledger.settle,
            call_id(self._run.id, call),
            started_ms=self._run.claimed_ms,
            tokens=tokens,
            costs=costs,
            unused=unused,
            budgets=self._run.options.get("budgets", ()),
            outcome=outcome,
            retry_after=retry_after,
            remaining=remaining,
        )
        await self._settle(call)

    async def close(self) -> None:
        """The run has ended: let go of what was reserved and not sent; the rest of it becomes unverified spend."""
        await self._end_start()
        for call in list(self._unsettled):
            await self._settle(call)
        for call in self._unanswered & self.open_calls:
            await self.settle(call, tokens={}, costs={}, unused=True)
        if self.open_calls:
            await self.ledger.relay(await self.ledger.lapse(self._run.key))
            self.open_calls.clear()

    async def _settle(self, call: str) -> None:
        settled = await self._unsettled[call]()
        self._unsettled.pop(call, None)
        await self.ledger.relay(settled.wakes)

    async def _note_ledger(self) -> None:
        """Limits that the job does not name: tell the queue where a lost lease has to be told, before anything is held."""
        run = self._run
        async with run.updating:
            run.updates += 1
            args: dict[str, object] = {
                "id": run.id,
                "token": run.token,
                "n": run.updates,
                "ledger": self.ledger.name,
            }
            try:
                await self._host.client.call("job_update", self._host.root, args)
            except LeaseLost:
                run.stop("lease_lost")
                raise
        self._is_known = True

    async def _end_start(self) -> None:
        """The handler's own calls reserve for themselves from now on."""
        call, self._start_call = self._start_call, None
        if call is not None:
            await self.settle(call, tokens={}, costs={}, unused=True)

    async def _wait_for_room(self, refusal: Refusal) -> None:
        match refusal:
            case OverBudget():
                await self._refused(refusal)
            case TurnedAway():
                await self._turned_away(refusal)
            case Unpriced():  # no room would help it
                raise refusal.error()

    async def _refused(self, verdict: OverBudget) -> None:
        if verdict.on_exceeded == "fail" or in_thread.get():
            raise verdict.error()
        on = f"{self.ledger.name}/{verdict.budget}"
        await self._park(Delayed("budget", verdict.gone_in, on, verdict.generation))

    async def _turned_away(self, verdict: TurnedAway) -> None:
        if verdict.wait <= _SHORT_WAIT:
            await asyncio.sleep(max(verdict.wait, 0.001))
        elif not in_thread.get():
            await self._park(Delayed("throttled", verdict.wait))
        else:
            raise verdict.error()

    async def _park(self, outcome: Delayed) -> None:
        await Waiting(self._run, self._host).park(outcome)
