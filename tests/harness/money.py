"""Handlers that spend money at the fake provider, and an auditor that compares three books: the provider's log, the
ledger, and the usage on the jobs.

A call's model is its id ("job/run/n"), so that the provider's log says which call each line is of.
"""

from __future__ import annotations

import asyncio
import bisect
import json
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any, TypeVar

import msgspec

from glidemq_core import Job, Queue
from glidemq_core.budget import BudgetState
from glidemq_core.ledger import Ledger
from tests.harness.processes import eventually
from tests.harness.provider import Behaviour, Provider, ProviderCall
from tests.harness.servers import ValkeyServer

K = TypeVar("K")
T = TypeVar("T")
INPUT = 5
_LATE = 0.5  # seconds that a loaded machine takes
_NANO = Decimal(1).scaleb(-9)
OPEN_ENDS = ("unverified", "late_refused")


def price(tokens: Mapping[str, int]) -> dict[str, Decimal]:
    """What tokens cost: odd nano-units, which a float could not add up."""
    return {"total": (tokens.get("input", 0) * 7 + tokens.get("output", 0) * 331) * _NANO}


def behaviour(output: int = 5, **more: Any) -> Behaviour:
    """A call that is billed INPUT and `output` tokens."""
    return Behaviour(tokens=output, input=INPUT, **more)


async def ask(port: int, model: str, *, limit: int = 1000, key: str = "") -> dict[str, int]:
    """Ask the fake provider for a whole answer; answers the tokens it billed. A connection of its own per call.

    `key`: what the provider's log shall know the effect by.
    """
    messages = [{"role": "user", "content": "say it"}]
    body = json.dumps({"model": model, "messages": messages, "max_tokens": limit}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
    head += f"Idempotency-Key: {key}\r\n\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(head.encode() + body)
        answer = await reader.readuntil(b"\r\n\r\n")
        headers = dict(line.split(b": ", 1) for line in answer.lower().splitlines()[1:] if line)
        found = json.loads(await reader.readexactly(int(headers[b"content-length"])))
    finally:
        writer.close()
    usage = found["usage"]
    return {"input": usage["prompt_tokens"], "output": usage["completion_tokens"]}


def spender(
    port: int,
    *,
    estimate: int = 5,
    let_in: Callable[[str], None] = lambda _: None,
    then: Any = None,
    key: str = "",
    limits: Any = None,
) -> Any:
    """A handler that makes one paid call.

    Args:
        let_in: Called with the call's id when it may be sent.
        then: `then(job)` is awaited between the answer and its booking.
        key: See `ask`.
        limits: Its own, beside those of its job.
    """

    async def spend(job: Any) -> int:
        expected = {"input": INPUT, "output": estimate}
        async with job.llm_call(
            "m", tokens=expected, costs=price(expected), timeout=5, limits=limits
        ) as call:
            let_in(call.id)
            used = await ask(port, call.id, key=key)
            if then is not None:
                await then(job)
            call.tokens, call.costs = used, price(used)
        return sum(used.values())

    return spend


async def each(ask: Callable[[K], Awaitable[T]], keys: Iterable[K]) -> list[T]:
    """The answers for all keys, in their order, some asked for at once."""
    places = asyncio.Semaphore(50)

    async def one(key: K) -> T:
        async with places:
            return await ask(key)

    return await asyncio.gather(*(one(key) for key in keys))


async def reserved(ledger: Ledger, budget: str = "b") -> dict[str, Decimal | int]:
    """What is reserved of a budget now."""
    state = await ledger.budget(budget)
    assert state is not None
    return dict(state.reserved)


async def until_nothing_is_reserved(ledger: Ledger, budgets: Sequence[str]) -> None:
    """Wait until the runs of dead workers were found, and their reservations let go."""

    async def nothing() -> bool:
        return not any([await reserved(ledger, budget) for budget in budgets])

    await eventually(nothing, 30, "something is still reserved")


async def money_problems(
    ledger: Ledger, budgets: Sequence[str], provider: Provider, queue: Queue, ids: Collection[str]
) -> list[str]:
    """What does not agree, once nothing runs any more: every call of the provider's log is in each budget, to the unit.

    A call whose worker died stands there as unverified, with at least what the provider billed. Nothing is reserved.
    """
    calls = {call.model: call for call in provider.calls() if call.outcome != "limited"}
    problems: list[str] = []
    jobs = [job for job in await each(queue.get, ids) if job is not None]
    for id in budgets:
        problems += await budget_problems(ledger, id)
        problems += await _calls_of_budget(ledger, id, calls)
        problems += await _apart(ledger, id, jobs)
    for job in jobs:
        problems += _of_job(job, calls)
    return problems


async def _apart(ledger: Ledger, id: str, jobs: Sequence[Job]) -> list[str]:
    """Where a budget and its jobs' own books differ: but for unverified calls, each has what the other has."""
    sums, kinds = await entries_of(ledger, id)
    settled = {
        call: (one["tokens.input"], one["tokens.output"], one["cost.total"])
        for call, one in sums.items()
        if kinds[call] not in OPEN_ENDS and any(one.values())
    }
    listed: dict[str, tuple[Decimal, ...]] = {}
    for call in (call for job in jobs for call in job.usage.calls):
        amounts = call["tokens"]["input"], call["tokens"]["output"], call["costs"]["total"]
        listed[call["call"]] = tuple(Decimal(amount) for amount in amounts)
    return [
        f"{id}: {call}: settled are {settled.get(call)}, on its job stand {listed.get(call)}"
        for call in settled.keys() | listed.keys()
        if settled.get(call) != listed.get(call)
    ]


async def sum_problems(
    ledger: Ledger,
    budgets: Sequence[str],
    provider: Provider,
    jobs: Sequence[Job],
    *,
    unread: int = 0,
) -> list[str]:
    """As `money_problems`, where the provider's log does not say which call is which: the sums must agree.

    `unread`: tokens that may have been on their way when a stream was closed.
    """
    problems: list[str] = []
    unverified = 0
    for id in budgets:
        problems += await budget_problems(ledger, id)
        state = await ledger.budget(id)
        assert state is not None
        unverified = max(unverified, _tokens(state, "unverified"))
        booked = sum(job.usage.total_tokens for job in jobs if id in job.options.get("budgets", ()))
        if _tokens(state, "used") - _tokens(state, "unverified") != booked:
            problems.append(f"{id} says {state.used}, but its jobs have used {booked} tokens")
    booked = sum(job.usage.total_tokens for job in jobs)
    billed = sum(provider.billed().values())
    is_sure = not unverified and all(
        call["status"] == "complete" for job in jobs for call in job.usage.calls
    )
    if billed > booked + unverified + unread or (is_sure and billed != booked):
        problems.append(f"the provider billed {billed} tokens, {booked} + {unverified} are booked")
    return problems + [problem for job in jobs for problem in _repeated(job)]


def _tokens(state: BudgetState, what: str) -> int:
    """All tokens, each counted as one."""
    caps = state.caps.items()
    return sum(int(getattr(cap, what)) for name, cap in caps if name.startswith("tokens."))


async def _calls_of_budget(ledger: Ledger, id: str, calls: Mapping[str, ProviderCall]) -> list[str]:
    sums, kinds = await entries_of(ledger, id)
    problems: list[str] = []
    for call in calls.values():
        problems += _of_call(id, call, sums.get(call.model, {}), kinds.get(call.model, ""))
    for call_id in set(sums) - set(calls):
        if kinds[call_id] not in OPEN_ENDS and any(sums[call_id].values()):
            problems.append(f"{id}: {call_id} was booked, but the provider never saw it")
    return problems


async def budget_problems(ledger: Ledger, id: str) -> list[str]:
    """What does not agree inside of a budget: its sums with its entries; and what is still reserved."""
    state = await ledger.budget(id)
    assert state is not None
    problems = [f"{id}: {problem}" for problem in (await ledger.audit(id)).problems]
    problems += [f"{id}: {name} is still reserved: {held}" for name, held in state.reserved.items()]
    sums, kinds = await entries_of(ledger, id)
    for name, used in state.used.items():
        booked = sum((one.get(name, Decimal(0)) for one in sums.values()), Decimal(0))
        if used != booked:
            problems.append(f"{id}: {name} is {used}, but its entries make {booked}")
        loose = sum(
            (one.get(name, Decimal(0)) for call, one in sums.items() if kinds[call] in OPEN_ENDS),
            Decimal(0),
        )
        if state.caps[name].unverified != loose:
            problems.append(
                f"{id}: {state.caps[name].unverified} of {name} unverified, not {loose}"
            )
    return problems


async def entries_of(
    ledger: Ledger, id: str
) -> tuple[dict[str, dict[str, Decimal]], dict[str, str]]:
    """What each call has added to a budget's used sums, and what the last word on it was."""
    sums: dict[str, dict[str, Decimal]] = defaultdict(lambda: defaultdict(Decimal))
    kinds: dict[str, str] = {}
    before = ""
    while page := await ledger.history(id, before=before, limit=1000):
        before = page[-1].id
        for entry in page:  # the newest first
            if entry.call:
                kinds.setdefault(entry.call, entry.kind)
                for name, change in entry.changes.items():
                    sums[entry.call][name] += change
    return sums, kinds


def _of_call(id: str, call: ProviderCall, sums: Mapping[str, Decimal], kind: str) -> list[str]:
    billed: dict[str, Any] = {"tokens.input": call.input, "tokens.output": call.output}
    billed["cost.total"] = price({"input": call.input, "output": call.output})["total"]
    wrong = {
        name: (sums.get(name, Decimal(0)), due)
        for name, due in billed.items()
        if (sums.get(name, Decimal(0)) < due)
        or (kind not in OPEN_ENDS and sums.get(name, Decimal(0)) != due)
    }
    return [f"{id}: {call.model} ({kind}): booked and billed differ: {wrong}"] if wrong else []


def _of_job(job: Job, calls: Mapping[str, ProviderCall]) -> list[str]:
    """A job's own book has no call twice, and no figure that is not the provider's."""
    problems = _repeated(job)
    for booked in job.usage.calls:
        true = calls.get(booked["call"])
        if booked["status"] == "complete" and (
            true is None or booked["tokens"] != {"input": true.input, "output": true.output}
        ):
            problems.append(f"{job.id}: {booked} is not what the provider says: {true}")
    return problems


def _repeated(job: Job) -> list[str]:
    counts = Counter(call["call"] for call in job.usage.calls)
    return [f"{job.id}: {call} is listed {n} times" for call, n in counts.items() if n > 1]


class Admissions:
    """When calls were let through, by the ledger's own clock: on a busy machine calls arrive in bunches."""

    def __init__(self, server: ValkeyServer) -> None:
        self.at: list[int] = []
        self._server = server

    def note(self, call: str) -> None:
        """Note an open call."""
        record = self._server.cmd("GET", f"glidemq:{{ledger:main}}:call:{call}")
        self.at.append(msgspec.msgpack.decode(record)["at"])

    def busiest(self, window: float) -> int:
        """The most calls in any window of so many seconds."""
        self.at.sort()
        ends = (bisect.bisect_left(self.at, at + window * 1000) for at in self.at)
        return max((end - i for i, end in enumerate(ends)), default=0)

    def problems(self, *, per_minute: int, burst: int, windows: Sequence[float]) -> list[str]:
        """Windows that hold more than the rate and its burst allow."""
        found = [
            (self.busiest(window), per_minute * window / 60 + burst, window) for window in windows
        ]
        return [
            f"{most} within {window:g} s, allowed are {allowed:g}"
            for most, allowed, window in found
            if most > allowed
        ]


def rate_problems(
    provider: Provider,
    *,
    per_minute: int,
    burst: int,
    windows: Sequence[float],
    weigh: Callable[[ProviderCall], int] = lambda _: 1,
) -> list[str]:
    """Windows in which more calls came than the rate and its burst allow, one for the clocks' sake.

    A call may come `_LATE` after it was let in: then there are more in the window, of those let in before it.
    """
    one_more = max((weigh(call) for call in provider.calls()), default=0)
    problems: list[str] = []
    for window in windows:
        most = provider.busiest(window, weigh=weigh)
        allowed = per_minute * (window + _LATE) / 60 + burst + one_more
        if most > allowed:
            problems.append(f"{most} within {window:g} s, allowed are {allowed:g}")
    return problems
