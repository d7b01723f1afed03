"""A ledger over one client: its functions with their replies as values. Money in nano-units, times in seconds."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias, cast

import msgspec

from . import _keys
from ._client import Client
from ._outbox import unpark
from ._units import from_nano, to_ms
from .budget import Budget, BudgetState, state_of, window_bounds
from .errors import BudgetExceeded, CostUnknown, GlideMQError, InvalidOption, Throttled
from .throttle import LimiterState, idle
from .throttle import state_of as limiter_of

logger = logging.getLogger(__name__)

_text: Final = msgspec.json.Encoder(order="sorted").encode
_unpack: Final = msgspec.msgpack.Decoder().decode
_MAX_RENEWALS: Final = 3
_MAX_TOLD: Final = 1000
_DAY: Final = 86_400.0  # the longest reservation and the longest pause of a limiter

Outcome: TypeAlias = Literal["ok", "limited", "error", "none"]
Settlement: TypeAlias = Literal["settled", "late", "already", "booked", "refused"]


@dataclass(frozen=True, slots=True)
class Admitted:
    """The reservation is made: at this time, epoch ms of the server's clock (0: it was not asked for)."""

    at: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class OverBudget:
    """A budget leaves too little; nothing was reserved.

    Attributes:
        limit, used, reserved, asked: (Weighted) tokens, or nano-units of money.
        on_exceeded: What the budget wants done: "fail" or "pause".
        gone_in: Seconds until the budget is gone, if it was dropped: nobody wakes who waits for longer.
        generation: What the budget's was; if a waiter was named it is registered, and every wake from now on is later.
    """

    budget: str
    cap: str
    limit: int
    used: int
    reserved: int
    asked: int
    on_exceeded: Literal["fail", "pause"]
    generation: int
    gone_in: float | None = None

    def error(self) -> BudgetExceeded:
        """The same as an error."""
        figure = from_nano if self.cap.startswith("cost.") else int
        return BudgetExceeded(
            self.budget,
            cap=self.cap,
            limit=figure(self.limit),
            used=figure(self.used),
            reserved=figure(self.reserved),
            asked=figure(self.asked),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Unpriced:
    """A budget caps money, and the call names neither that cost nor a total; nothing was reserved."""

    budget: str
    cap: str

    def error(self) -> CostUnknown:
        """The same as an error."""
        return CostUnknown(self.budget, cap=self.cap)


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnedAway:
    """A limiter has no room before `wait` seconds from now, which is this caller's own slot; nothing was reserved.

    Attributes:
        is_open: Its breaker is open: what it guards keeps failing.
    """

    limiter: str
    wait: float
    is_open: bool

    def error(self) -> Throttled:
        """The same as an error."""
        return Throttled(self.limiter, retry_after=self.wait)


Refusal: TypeAlias = OverBudget | Unpriced | TurnedAway
Verdict: TypeAlias = Admitted | Refusal


@dataclass(frozen=True, slots=True)
class Wake:
    """Jobs to be unparked: relay it to their queue with `job_unpark`, then acknowledge `entry` by `upkeep`.

    Attributes:
        queue_root: Root key of their queue.
        budget: What they waited for; `generation`: what it has become.
    """

    entry: str
    queue_root: str
    budget: str
    generation: int
    jobs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Settled:
    """A settle's answer, with the jobs it has made room for."""

    code: Settlement
    wakes: tuple[Wake, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LogEntry:
    """One line of a budget's log.

    Attributes:
        window: Start of its window in ms, 0 for a budget without windows.
        sums: Per name, what the used sum gained and what it became.
    """

    id: str
    kind: str
    call: str
    window: int
    note: str
    sums: Mapping[str, tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Upkeep:
    """A round of upkeep: the jobs to unpark, and whether to come again at once."""

    wakes: tuple[Wake, ...]
    more: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiter:
    """A job to be parked if a budget with on_exceeded="pause" refuses.

    Attributes:
        queue_root: Root key of its queue.
        since_ms: When it first waited, to keep its place; default: now, or where it stood.
    """

    queue_root: str
    job: str
    since_ms: int | None = None


class LedgerClient:
    """The functions of one ledger.

    Every call may be repeated: the same call id has the same answer.
    """

    def __init__(self, client: Client, name: str = "main") -> None:
        self.name = name
        self.root = _keys.ledger_root(name)
        self._client = client

    async def open(self, id: str, budget: Budget, *, update: bool = False) -> str:
        """Make a budget ("made" or "kept"), or change one ("updated" or "missing"); wakes who fits now."""
        if not isinstance(budget, Budget):  # pyright: ignore[reportUnnecessaryIsInstance] checked for untyped callers
            raise InvalidOption("budget", budget, "not a Budget")
        now = cast("int", (await self._get([], []))[0])
        start, stop = window_bounds(budget.window, budget.time_zone, now)
        args: dict[str, object] = {
            "id": id,
            "caps": budget.caps(),
            "weights": budget.weights(),
            "on": budget.on_exceeded,
            "unit": budget.cost_unit,
            "window": budget.window,
            "zone": budget.time_zone,
            "start": start,
            "stop": stop,
            "update": update,
        }
        verdict, sent = await self._call("ledger_open", args)
        await self.wake(_wakes(sent))
        return verdict

    async def drop(self, id: str, *, after: float) -> bool:
        """Let a budget go in `after` seconds; False: there is none."""
        args: dict[str, object] = {"id": id, "after_ms": max(1, to_ms(after))}
        return bool(await self._client.call("ledger_drop", self.root, args))

    async def reserve(
        self,
        call: str,
        *,
        tokens: Mapping[str, int],
        costs: Mapping[str, int],
        ttl: float,
        budgets: Sequence[str] = (),
        limiters: Sequence[Mapping[str, object]] = (),
        sent: bool = True,
        ticket: str | None = None,
        waiter: Waiter | None = None,
        look: bool = False,
    ) -> Verdict:
        """Set aside what a call may use, in all budgets and limiters or in none.

        Args:
            limiters: As `Throttle.wire(name)` gives them.
            sent: Whether an unsettled reservation counts as spent when it runs out after `ttl` seconds. Such a call has to
                name its cost where a budget caps money.
            ticket: Who a limiter promises a slot; default the call. Give the job for a job that comes again.
            look: Only ask: where it would fit, nothing is set aside.

        Raises:
            InvalidOption: A budget does not exist, or the call is over already.
        """
        args: dict[str, object] = {
            "call": call,
            "budgets": list(budgets),
            "limiters": [_limiter(conf) for conf in limiters],
            "tokens": dict(tokens),
            "costs": dict(costs),
            "ttl_ms": max(1, to_ms(min(ttl, _DAY))),
            "sent": sent,
        }
        if look:
            args["look"] = True
        if ticket is not None:
            args["ticket"] = ticket
        if waiter is not None:
            args["waiter"] = _waiter(waiter)
        reply = await self._call("ledger_reserve", args)
        for _ in range(_MAX_RENEWALS):
            if reply[0] != "renew":
                break
            await self._turn_windows(reply[1], reply[2])
            reply = await self._call("ledger_reserve", args)
        return _verdict(reply, call)

    async def extend(
        self,
        call: str,
        *,
        tokens: Mapping[str, int],
        costs: Mapping[str, int],
        ttl: float | None = None,
    ) -> Verdict:
        """Raise an open reservation to these totals; limiters are charged without being asked.

        Raises:
            InvalidOption: The call is not open (any more).
        """
        args: dict[str, object] = {"call": call, "tokens": dict(tokens), "costs": dict(costs)}
        if ttl is not None:
            args["ttl_ms"] = to_ms(min(ttl, _DAY))
        return _verdict(await self._call("ledger_extend", args), call)

    async def settle(
        self,
        call: str,
        *,
        started_ms: int | None = None,
        tokens: Mapping[str, int] | None = None,
        costs: Mapping[str, int] | None = None,
        unused: bool = False,
        budgets: Sequence[str] = (),
        outcome: Outcome = "none",
        retry_after: float = 0.0,
        remaining: Mapping[str, int] | None = None,
        note: str = "",
    ) -> Settled:
        """Replace what was reserved by what was used; the first settle of a call counts.

        Args:
            started_ms: When the call's run began, by the server; default: now. A settle without a record that is a day late is refused.
            unused: It was never sent: release it.
            budgets: Where it counts if nobody has reserved it.
            outcome: How the other side fared, for limiters: "limited" (429) lowers them, "error" counts for breakers.
            remaining: What the other side says is left, by axis ("rpm", "tpm", ...).
        """
        args: dict[str, object] = {
            "call": call,
            "tokens": dict(tokens or {}),
            "costs": dict(costs or {}),
            "outcome": outcome,
        }
        optional: dict[str, object] = {
            "started_ms": started_ms,
            "unused": unused,
            "budgets": list(budgets),
            "retry_after_ms": to_ms(min(retry_after, _DAY)),
            "remaining": dict(remaining or {}),
            "note": note,
        }
        args |= {name: value for name, value in optional.items() if value}
        reply = await self._call("ledger_settle", args)
        for _ in range(_MAX_RENEWALS):
            if reply[0] != "renew":
                break
            await self._turn_windows(reply[2], reply[3])
            reply = await self._call("ledger_settle", args)
        return Settled(reply[0], _wakes(reply[1]))

    async def charge(
        self, call: str, *, tokens: Mapping[str, int], limiters: Sequence[Mapping[str, object]]
    ) -> None:
        """Tell limiters what was used without asking them; once per call."""
        args: dict[str, object] = {
            "call": call,
            "limiters": [_limiter(conf) for conf in limiters],
            "tokens": dict(tokens),
        }
        await self._call("ledger_charge", args)

    async def lapse(self, run: str) -> tuple[Wake, ...]:
        """End what a run ("job/run") has left open; answers the jobs this has made room for."""
        wakes: list[Wake] = []
        more = True
        while more:
            _, more, sent = await self._call("ledger_lapse", {"run": run})
            wakes += _wakes(sent)
        return tuple(wakes)

    async def upkeep(
        self,
        acknowledge: Iterable[str] = (),
        gone: Iterable[tuple[str, str]] = (),
        failed: Iterable[tuple[str, str]] = (),
    ) -> Upkeep:
        """Do a round of upkeep, acknowledge relayed entries; turns windows that have ended.

        Args:
            failed: Entries that could not be relayed, each with the reason: they come again later.
            gone: Woken jobs that have ended meanwhile, each by its budget and by its queue's root and id on two lines.
        """
        args: dict[str, object] = {"ack": list(acknowledge)}
        if ended := [list(pair) for pair in gone]:
            args["gone"] = ended
        if aside := [list(pair) for pair in failed]:
            args["failed"] = aside
        now, more, windows, sent = await self._call("ledger_upkeep", args)
        turned = await self._turn_windows(now, windows)
        return Upkeep(_wakes(sent) + turned, bool(more))

    async def relay(self, wakes: Sequence[Wake]) -> None:
        """Tell queues that there is room for jobs of theirs, acknowledge that, and go on with what came up meanwhile."""
        while wakes:
            told = await unpark(self._client, self.name, wakes[:_MAX_TOLD])  # the rest comes again
            wakes = (await self.upkeep(told.done, told.gone[:_MAX_TOLD], told.failed)).wakes

    async def wake(self, wakes: Sequence[Wake]) -> None:
        """As `relay`, for callers that have done what they were to do: if it fails, the upkeep of a worker does it."""
        try:
            await self.relay(wakes)
        except GlideMQError as error:
            logger.warning("jobs that wait for room in ledger %s wake later: %s", self.name, error)

    async def budget(self, id: str) -> BudgetState | None:
        """A budget now; None if there is none."""
        now, (found,), _ = await self._get([id], [])
        if found and found[0]["stop"] and now >= found[0]["stop"]:
            await self._turn_windows(now, [[id, found[0]["window"], found[0]["zone"]]])
            _, (found,), _ = await self._get([id], [])
        return state_of(id, found[0], found[1], found[2]) if found else None

    async def budgets(self, *, start: int, limit: int) -> list[str]:
        """Ids of budgets, the eldest first."""
        args: dict[str, object] = {"start": start, "limit": limit}
        found = await self._client.call("ledger_list", self.root, args)
        return [raw.decode() for raw in found]

    async def limiter(self, name: str) -> LimiterState:
        """A limiter now."""
        now, _, (found,) = await self._get([], [name])
        return limiter_of(name, found[0], found[1], now) if found else idle(name)

    async def history(self, id: str, *, before: str = "", limit: int = 100) -> list[LogEntry]:
        """Entries of a budget, newest first, from before an entry's id."""
        return [_log_entry(*row) for row in await self._history(id, before, limit)]

    async def alerts(
        self, *, before: str = "", limit: int = 100
    ) -> list[tuple[str, dict[str, str]]]:
        """Alerts of all budgets: (id, fields), newest first."""
        rows = await self._history("", before, limit)
        return [(id, {key: value.decode() for key, value in row.items()}) for id, row in rows]

    async def _history(
        self, id: str, before: str, limit: int
    ) -> list[tuple[str, dict[str, bytes]]]:
        args: dict[str, object] = {"id": id, "before": before, "limit": limit}
        rows = await self._client.call("ledger_history", self.root, args)
        return [
            (id.decode(), dict(zip((k.decode() for k in flat[::2]), flat[1::2], strict=True)))
            for id, flat in rows
        ]

    async def audit_page(self, id: str, after: str) -> list[Any]:
        """A page of an audit (see ledger_audit)."""
        return await self._call("ledger_audit", {"id": id, "after": after})

    async def _turn_windows(self, now: int, windows: Iterable[Sequence[str]]) -> tuple[Wake, ...]:
        wakes: list[Wake] = []
        for id, window, zone in windows:
            start, stop = window_bounds(window, zone, now)
            _, sent = await self._call("ledger_turn", {"id": id, "start": start, "stop": stop})
            wakes += _wakes(sent)
        return tuple(wakes)

    async def _get(self, budgets: list[str], limiters: list[str]) -> list[Any]:
        return await self._call("ledger_get", {"budgets": budgets, "limiters": limiters})

    async def _call(self, name: str, args: dict[str, object]) -> list[Any]:
        return _unpack(await self._client.call(name, self.root, args))


def _verdict(reply: list[Any], call: str) -> Verdict:
    match reply:
        case ["ok", *at]:
            return Admitted(*at)
        case ["budget", facts, generation]:
            return _over_budget(facts, generation)
        case ["unpriced", budget, cap]:
            return Unpriced(budget=budget, cap=cap)
        case [("throttled" | "open") as kind, limiter, ms]:
            return TurnedAway(limiter=limiter, wait=ms / 1000, is_open=kind == "open")
        case ["missing", id]:
            raise InvalidOption("budgets", id, "no budget of that id; open it first")
        case ["renew", *_]:
            raise InvalidOption("window", call, "clocks disagree about the budget's window")
        case _:
            raise InvalidOption("call", call, "this call is over: a call id is used once")


def _over_budget(facts: Mapping[str, Any], generation: int) -> OverBudget:
    # Weighted tokens are counted in thousandths; people see whole ones, rounded up.
    unit = 1000 if facts["cap"] == "total_tokens" else 1
    numbers = {
        name: -(-int(facts[name]) // unit) for name in ("limit", "used", "reserved", "asked")
    }
    return OverBudget(
        budget=facts["budget"],
        cap=facts["cap"],
        on_exceeded=facts["on"],
        generation=generation,
        gone_in=facts["gone_in"] / 1000 if "gone_in" in facts else None,
        **numbers,
    )


def _log_entry(id: str, fields: Mapping[str, bytes]) -> LogEntry:
    kind, call, window, note, *sums = cast("list[Any]", _unpack(fields["line"]))
    rest = iter(sums)
    return LogEntry(
        id=id,
        kind=kind,
        call=call,
        window=window,
        note=note,
        sums={name: (gained, became) for name, gained, became in zip(*[rest] * 3, strict=True)},
    )


def _wakes(rows: Iterable[Sequence[Any]]) -> tuple[Wake, ...]:
    return tuple(
        Wake(entry, queue, budget, generation, tuple(jobs.split("\n")))
        for entry, queue, budget, generation, jobs in rows
    )


def _limiter(conf: Mapping[str, object]) -> list[str]:
    """Its configuration travels as a text, which the server reads only when it is a new one."""
    name = cast("str", conf["name"])
    return [name, _text({key: value for key, value in conf.items() if key != "name"}).decode()]


def _waiter(waiter: Waiter) -> dict[str, object]:
    found: dict[str, object] = {"queue": waiter.queue_root, "job": waiter.job}
    if waiter.since_ms is not None:
        found["since"] = waiter.since_ms
    return found
