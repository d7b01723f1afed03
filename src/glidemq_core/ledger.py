"""The ledger: budgets and throttles that queues, processes and machines share.

A ledger is one slot of the server: all budgets and limiters of one call are checked in one step, all or nothing. More
ledgers spread over more shards; what one call names must be in one of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import Any, Final, Self, get_args

from . import _keys
from ._amounts import left, nano_costs, token_counts
from ._client import release_client, shared_client
from ._codec import checked_text
from ._ledger import Admitted, LedgerClient, LogEntry, Outcome, Settlement, Unpriced, Verdict
from ._target import Target, resolve
from ._units import Money, Seconds, instant, seconds, whole
from .budget import Budget, BudgetAlert, BudgetAudit, BudgetEntry, BudgetState, amount
from .errors import InvalidOption
from .throttle import LimiterState, Throttle, wires_of

_DEFAULT_TTL: Final = 120.0
_DAY: Final = 86_400.0
_AUDIT_TRIES: Final = 5
_PAGE: Final = 1000

Limits = Sequence[str] | Mapping[str, Throttle]


class Reservation:
    """What a call has set aside. Settle it or release it on every way out; a forgotten one counts as spent when it
    runs out (or as nothing, if it was made with `sent=False`).

    Attributes:
        call: The call's id.
    """

    __slots__ = ("_budgets", "_ledger", "_started_ms", "call")

    def __init__(self, ledger: Ledger, call: str, budgets: Sequence[str], started_ms: int) -> None:
        self._ledger = ledger
        self._budgets = budgets
        self._started_ms = started_ms
        self.call = call

    async def settle(
        self,
        *,
        tokens: Mapping[str, int] | None = None,
        costs: Mapping[str, Money] | None = None,
        outcome: Outcome = "ok",
        retry_after: Seconds = 0,
        note: str = "",
    ) -> Settlement:
        """See Ledger.settle."""
        return await self._ledger.settle(
            self.call,
            tokens=tokens,
            costs=costs,
            budgets=self._budgets,
            outcome=outcome,
            retry_after=retry_after,
            started_at=self._started_ms / 1000,
            note=note,
        )

    async def release(self) -> None:
        """See Ledger.release."""
        await self._ledger.release(self.call)

    async def extend(
        self,
        *,
        tokens: Mapping[str, int] | None = None,
        costs: Mapping[str, Money] | None = None,
        ttl: Seconds | None = None,
    ) -> None:
        """See Ledger.extend."""
        await self._ledger.extend(self.call, tokens=tokens, costs=costs, ttl=ttl)

    def __repr__(self) -> str:
        return f"<Reservation {self.call!r}>"


class Ledger:
    """Budgets and throttles under one name.

    Args:
        name: The ledger's name.
        connection: As a Queue's.

    Nothing is connected until the first call. Close it, or use it with `async with`.
    """

    def __init__(self, name: str = "main", *, connection: str | Target | None = None) -> None:
        self.name = _keys.check_name(name, "name")
        self._connection = connection
        self._client: LedgerClient | None = None
        self._shared: Any = None
        self._opening: asyncio.Lock | None = None
        self._throttles: dict[str, Throttle] = {}

    # -- budgets

    async def open_budget(self, id: str, budget: Budget) -> BudgetState:
        """Make a budget; one that is there stays as it is (`update_budget` changes it). Answers what it is now."""
        client = await self._open()
        await client.open(_keys.check_id(id), budget)
        return await self._state(client, id)

    async def update_budget(self, id: str, budget: Budget) -> BudgetState:
        """Replace the caps, weights and rules of a budget; what was spent stays. Room wakes the jobs that wait for it.

        Raises:
            InvalidOption: There is no such budget.
        """
        client = await self._open()
        if await client.open(_keys.check_id(id), budget, update=True) == "missing":
            raise InvalidOption("id", id, "no budget of that id; open it first")
        return await self._state(client, id)

    async def budget(self, id: str) -> BudgetState | None:
        """A budget as it is now; None if there is none."""
        return await (await self._open()).budget(_keys.check_id(id))

    async def budgets(self, *, start: int = 0, limit: int = 100) -> list[BudgetState]:
        """The budgets as they are now, the eldest first; not those that were let go, as flows' and jobs' own are.

        Args:
            limit: How many at most, up to 100.
        """
        client = await self._open()
        ids = await client.budgets(
            start=whole(start, "start"), limit=whole(limit, "limit", low=1, high=100)
        )
        states = [await client.budget(id) for id in ids]
        return [state for state in states if state is not None]

    async def drop_budget(self, id: str, *, after: Seconds = 7 * _DAY) -> bool:
        """Let a budget go after a while; until then it works on. False: there is none.

        Jobs that still wait for room in it then fail, as all that name a budget that is not there.
        """
        client = await self._open()
        return await client.drop(_keys.check_id(id), after=seconds(after, "after", low=0.001))

    async def history(self, id: str, *, limit: int = 100, before: str = "") -> list[BudgetEntry]:
        """What happened to a budget, newest first; the last 10,000 entries are kept.

        Args:
            before: The id of an entry, to go on from there.
        """
        whole(limit, "limit", low=1, high=_PAGE)
        place = _keys.check_place(before, "before")
        rows = await (await self._open()).history(_keys.check_id(id), before=place, limit=limit)
        return [_entry(row) for row in rows]

    async def alerts(self, *, limit: int = 100, before: str = "") -> list[BudgetAlert]:
        """Caps of all budgets that have reached 50, 80 or 100 percent, newest first."""
        whole(limit, "limit", low=1, high=_PAGE)
        place = _keys.check_place(before, "before")
        rows = await (await self._open()).alerts(before=place, limit=limit)
        return [_alert(row) for row in rows]

    async def audit(self, id: str) -> BudgetAudit:
        """Recompute a budget: reserved sums from the open reservations, used sums from the history that is kept.

        Raises:
            InvalidOption: There is no such budget.
        """
        from ._audit import audit

        return await audit(await self._open(), _keys.check_id(id), tries=_AUDIT_TRIES)

    # -- limiters

    def limiter(self, name: str, throttle: Throttle) -> None:
        """Say what the limits of a name are, for the calls of this object that name it."""
        self._throttles[_keys.check_id(name)] = throttle

    async def limiter_state(self, name: str) -> LimiterState:
        """A limiter as it is now; looking at it keeps nothing alive."""
        return await (await self._open()).limiter(_keys.check_id(name))

    # -- calls

    async def reserve(
        self,
        call: str,
        *,
        tokens: Mapping[str, int] | None = None,
        costs: Mapping[str, Money] | None = None,
        budgets: Sequence[str] = (),
        limits: Limits = (),
        ttl: Seconds = _DEFAULT_TTL,
        sent: bool = True,
    ) -> Reservation:
        """Set aside what a call may use, in all budgets and limiters it names or in none.

        Args:
            call: Its id, for example "job/run/n". The same id again is the same reservation.
            tokens: By category; the categories are disjoint, their sum is the total.
            costs: Money by name; what `max_total_cost` caps is called "total". Under a budget that caps money, what is to be
                sent has to name one: {"total": 0} sets nothing aside.
            budgets: Ids of budgets that are open.
            limits: Names given to `limiter()`, or a mapping of names to throttles.
            ttl: Seconds after which an unsettled reservation runs out.
            sent: Whether it then counts as spent, unverified.

        Raises:
            BudgetExceeded: A cap leaves less. Nothing was reserved.
            CostUnknown: A budget caps money, and `costs` names none. Nothing was reserved.
            Throttled: A limiter has no room; `retry_after` is this caller's own slot. Nothing was reserved.
            InvalidOption: A budget or limiter is not known, or the call was settled before.
        """
        verdict = await self._reserve(
            call, tokens=tokens, costs=costs, budgets=budgets, limits=limits, ttl=ttl, sent=sent
        )
        if isinstance(verdict, Admitted):
            return Reservation(self, call, budgets, verdict.at)
        raise verdict.error()

    async def try_reserve(
        self,
        call: str,
        *,
        tokens: Mapping[str, int] | None = None,
        costs: Mapping[str, Money] | None = None,
        budgets: Sequence[str] = (),
        limits: Limits = (),
        ttl: Seconds = _DEFAULT_TTL,
        sent: bool = False,
    ) -> Reservation | None:
        """As `reserve`, but None where that raises BudgetExceeded or Throttled, and forgotten if never settled."""
        verdict = await self._reserve(
            call, tokens=tokens, costs=costs, budgets=budgets, limits=limits, ttl=ttl, sent=sent
        )
        if isinstance(verdict, Admitted):
            return Reservation(self, call, budgets, verdict.at)
        if isinstance(verdict, Unpriced):
            raise verdict.error()
        return None

    async def extend(
        self,
        call: str,
        *,
        tokens: Mapping[str, int] | None = None,
        costs: Mapping[str, Money] | None = None,
        ttl: Seconds | None = None,
    ) -> None:
        """Raise an open reservation to these totals: the next slice of a stream. Limiters are charged, not asked.

        Raises:
            BudgetExceeded, CostUnknown: As `reserve`; the reservation stays as it was.
            InvalidOption: The call is not open (any more).
        """
        client = await self._open()
        verdict = await client.extend(
            _keys.check_id(call, "call"),
            tokens=token_counts(tokens or {}),
            costs=nano_costs(costs),
            ttl=None if ttl is None else seconds(ttl, "ttl", low=0.001),
        )
        if not isinstance(verdict, Admitted):
            raise verdict.error()

    async def settle(
        self,
        call: str,
        *,
        tokens: Mapping[str, int] | None = None,
        costs: Mapping[str, Money] | None = None,
        budgets: Sequence[str] = (),
        outcome: Outcome = "ok",
        retry_after: Seconds = 0,
        remaining: Mapping[str, int] | None = None,
        started_at: float | datetime | None = None,
        note: str = "",
    ) -> Settlement:
        """Replace what was reserved by what was used. The first settle of a call counts, the others do nothing.

        Args:
            tokens, costs: As for `reserve`. Tokens without any cost have cost what was reserved for them.
            budgets: Where it counts if nobody has reserved it.
            outcome: How the other side fared, for limiters: "limited" (429) lowers them, "error" counts for breakers.
            retry_after: Seconds for which the other side asks to be left alone.
            remaining: What the other side says is left in this minute, by axis ("rpm", "tpm", ...).
            started_at: When the call's run began (epoch seconds); default: now. More than a day ago without a record
                of the call: refused.

        Returns:
            "settled", "late" (it had run out before, and counts), "already", "booked" (nobody had reserved it) or
            "refused" (a day too late: logged, not added).
        """
        client = await self._open()
        if outcome not in get_args(Outcome):
            raise InvalidOption("outcome", outcome, "not 'ok', 'limited', 'error' or 'none'")
        done = await client.settle(
            _keys.check_id(call, "call"),
            started_ms=None if started_at is None else _started_ms(started_at),
            tokens=token_counts(tokens or {}),
            costs=nano_costs(costs),
            budgets=_ids(budgets),
            outcome=outcome,
            retry_after=seconds(retry_after, "retry_after"),
            remaining=left(remaining),
            note=checked_text(note, "note"),
        )
        await client.wake(done.wakes)
        return done.code

    async def release(self, call: str) -> None:
        """Give back what was reserved for a call that was never sent."""
        client = await self._open()
        done = await client.settle(_keys.check_id(call, "call"), unused=True)
        await client.wake(done.wakes)

    # -- life

    async def close(self) -> None:
        """Let go of the connection."""
        shared, self._shared, self._client = self._shared, None, None
        if shared is not None:
            await release_client(shared)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def _open(self) -> LedgerClient:
        if self._client is not None:
            return self._client
        if self._opening is None:
            self._opening = asyncio.Lock()
        async with self._opening:
            if self._client is None:
                target = await asyncio.to_thread(resolve, self._connection)
                self._shared = await shared_client(target)
                self._client = LedgerClient(self._shared, self.name)
        return self._client

    async def _state(self, client: LedgerClient, id: str) -> BudgetState:
        state = await client.budget(id)
        if state is None:
            raise InvalidOption("id", id, "the budget was dropped meanwhile")
        return state

    async def _reserve(
        self,
        call: str,
        *,
        tokens: Mapping[str, int] | None,
        costs: Mapping[str, Money] | None,
        budgets: Sequence[str],
        limits: Limits,
        ttl: Seconds,
        sent: bool,
    ) -> Verdict:
        client = await self._open()
        return await client.reserve(
            _keys.check_id(call, "call"),
            tokens=token_counts(tokens or {}),
            costs=nano_costs(costs),
            budgets=_ids(budgets),
            limiters=self._limiters(limits),
            ttl=seconds(ttl, "ttl", low=0.001),
            sent=sent,
        )

    def _limiters(self, limits: Limits) -> list[Mapping[str, object]]:
        if isinstance(limits, Mapping):
            return wires_of(limits, "limits")
        found: list[Mapping[str, object]] = []
        for name in _keys.check_list(limits, "limits"):
            if name not in self._throttles:
                raise InvalidOption("limits", name, "not known here; say what it is by limiter()")
            found.append(self._throttles[name].wire(name))
        return found


def _started_ms(at: float | datetime) -> int:
    return round(seconds(at.timestamp() if isinstance(at, datetime) else at, "started_at") * 1000)


def _ids(budgets: Sequence[str]) -> list[str]:
    return [_keys.check_id(id, "budgets") for id in _keys.check_list(budgets, "budgets")]


def _at(id: str) -> datetime:
    at = instant(id.partition("-")[0])
    assert at is not None, "stream ids begin with their time"
    return at


def _entry(row: LogEntry) -> BudgetEntry:
    return BudgetEntry(
        id=row.id,
        at=_at(row.id),
        kind=row.kind,
        call=row.call,
        window_start=instant(row.window),
        changes={name: amount(name, gained) for name, (gained, _) in row.sums.items()},
        after={name: amount(name, became) for name, (_, became) in row.sums.items()},
        note=row.note,
    )


def _alert(row: tuple[str, Mapping[str, str]]) -> BudgetAlert:
    id, fields = row
    cap = fields["cap"]
    return BudgetAlert(
        id=id,
        at=_at(id),
        budget=fields["budget"],
        cap=cap,
        percent=int(fields["percent"]),
        used=amount(cap, int(fields["used"])),
        limit=amount(cap, int(fields["limit"])),
    )
