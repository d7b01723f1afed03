"""What must hold of money, limits, streams, steps and repeats when a fault has passed and nothing runs any more.

The fake provider's log says what was spent, the ledger and the jobs say what was booked, the streams what was told.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from glidemq_core import Chunk, Job, Queue
from glidemq_core._units import to_nano
from glidemq_core.job import STATES, TERMINAL
from glidemq_core.ledger import Ledger
from tests.harness.auditor import chunk_problems
from tests.harness.fsck import fsck
from tests.harness.money import (
    OPEN_ENDS,
    budget_problems,
    each,
    entries_of,
    money_problems,
    rate_problems,
    sum_problems,
)
from tests.harness.provider import Provider, ProviderCall
from tests.harness.servers import Look


@dataclass(frozen=True, kw_only=True)
class Rate:
    """What a limiter allows: `per_minute` calls (or what `weigh` makes of a call), and `burst` of them at once."""

    per_minute: int
    burst: int
    windows: Sequence[float] = (0.5, 1, 2, 5)
    weigh: Callable[[ProviderCall], int] = lambda _: 1


class Aftermath:
    """Finds the jobs and budgets of a test by itself, and looks through them with `check()`.

    Attributes:
        rates: The limits that all of the provider's calls were under.
        overshoot: May a budget have been used beyond its cap, because calls used more than they had set aside?
        unread: How many tokens may have been on their way when a stream was closed.
    """

    def __init__(self, server: Look, queue: Queue, ledger: Ledger, provider: Provider) -> None:
        self.rates: list[Rate] = []
        self.overshoot = False
        self.unread = 0
        self._server = server
        self._queue = queue
        self._ledger = ledger
        self._provider = provider
        self._seen: list[tuple[str, list[Chunk]]] = []

    def saw(self, id: str, chunks: list[Chunk]) -> None:
        """What a reader of a job has seen from the beginning to the end, to be looked through with the rest."""
        self._seen.append((id, chunks))

    async def check(self) -> None:
        """Assert all of it; a line per problem."""
        jobs = {job.id: job for state in STATES for job in await self._in_state(state)}
        problems = [
            *await self._money(list(jobs.values())),
            *self._rates(),
            *await self._streams(jobs),
            *effect_problems(self._provider.calls(), jobs, self._losses(jobs)),
            *await self._repeats(jobs),
            *fsck(self._server, self._queue.name),
        ]
        assert not problems, "\n".join(problems)

    async def _in_state(self, state: Any) -> list[Job]:
        found: list[Job] = []
        while page := await self._queue.jobs(state, start=len(found), limit=1000):
            found += page
        return found

    def _budgets(self) -> list[str]:
        start = "glidemq:{ledger:main}:budget:"
        return [key.removeprefix(start) for key in self._server.keys(f"{start}*")]

    async def _money(self, jobs: list[Job]) -> list[str]:
        """No budget beyond its cap, nothing reserved, and the three books agree (I6)."""
        budgets, calls = self._budgets(), self._provider.calls()
        if not calls:
            problems = [
                problem for id in budgets for problem in await budget_problems(self._ledger, id)
            ]
        elif all("/" in call.model for call in calls):
            ids = [job.id for job in jobs]
            problems = await money_problems(self._ledger, budgets, self._provider, self._queue, ids)
        else:
            problems = await sum_problems(
                self._ledger, budgets, self._provider, jobs, unread=self.unread
            )
        for id in budgets if not self.overshoot else ():
            state = await self._ledger.budget(id)
            assert state is not None
            problems += [
                f"{id}: {cap.used} of {name} were used, its cap is {cap.limit}"
                for name, cap in state.caps.items()
                if cap.limit is not None and cap.used > cap.limit
            ]
        return problems

    def _rates(self) -> list[str]:
        """No window holds more than the limiters allow (I7)."""
        return [
            problem
            for rate in self.rates
            for problem in rate_problems(
                self._provider,
                per_minute=rate.per_minute,
                burst=rate.burst,
                windows=rate.windows,
                weigh=rate.weigh,
            )
        ]

    async def _streams(self, jobs: dict[str, Job]) -> list[str]:
        """Every reader of an ended job has seen it whole: those of the test, and one that comes now (I8)."""

        async def read(id: str) -> tuple[str, list[Chunk]]:
            return id, [chunk async for chunk in self._queue.stream(id)]

        ended = [id for id, job in jobs.items() if job.state in TERMINAL]
        seen = [(id, chunks) for id, chunks in self._seen if id in jobs] + await each(read, ended)
        return [problem for id, chunks in seen for problem in chunk_problems(chunks, jobs[id])]

    def _losses(self, jobs: dict[str, Job]) -> dict[str, int]:
        """How many runs of each job have not come to their end."""
        key = f"glidemq:{{{self._queue.name}}}:job:"
        unstarted = {id: self._server.cmd("HGET", key + id, "lost") for id in jobs}
        return {
            id: job.stalled + job.attempt - 1 + int(unstarted[id] or 0) for id, job in jobs.items()
        }

    async def _repeats(self, jobs: dict[str, Job]) -> list[str]:
        """Whatever was called may be called again with the same id, and changes nothing (I14)."""
        before = await self._picture(jobs)
        problems = [
            problem for found in await each(self._repeat, jobs.values()) for problem in found
        ]
        for id in self._budgets():
            problems += await self._settle_again(id)
        after = await self._picture(jobs)
        changed = [
            f"{name}: {before[name]} became {after[name]}"
            for name in before
            if before[name] != after[name]
        ]
        return problems + changed

    async def _repeat(self, job: Job) -> list[str]:
        problems: list[str] = []
        if not (await self._queue.add(job.name, job_id=job.id)).is_duplicate:
            problems.append(f"{job.id} was added again")
        if job.state in TERMINAL and await self._queue.cancel(job.id) != "ended":
            problems.append(f"{job.id} was cancelled after its end")
        return problems + [
            f"{call['call']} was booked again"
            for call in job.usage.calls
            if await self._book_again(job.id, call)
        ]

    async def _book_again(self, id: str, call: dict[str, Any]) -> bool:
        args: dict[str, object] = {
            "id": id,
            "call": call["call"],
            "model": call["model"],
            "tokens": call["tokens"],
            "costs": {name: to_nano(Decimal(cost), name) for name, cost in call["costs"].items()},
            "entry": "{}",
        }
        return await self._queue._call("job_usage", args) == 1

    async def _settle_again(self, budget: str) -> list[str]:
        _, kinds = await entries_of(self._ledger, budget)

        async def settle(call: str) -> str:
            return await self._ledger.settle(
                call, tokens={"input": 1}, budgets=[budget], outcome="none"
            )

        calls = [call for call, kind in kinds.items() if kind not in OPEN_ENDS]
        said = zip(calls, await each(settle, calls), strict=True)
        return [f"{call} was settled again: {how}" for call, how in said if how != "already"]

    async def _picture(self, jobs: dict[str, Job]) -> dict[str, object]:
        """What must stay as it is, by a name for it."""
        picture: dict[str, object] = {"counts": await self._queue.counts()}
        for id in self._budgets():
            picture[id] = await self._ledger.budget(id)
        for job in await each(self._queue.get, jobs):
            assert job is not None
            calls = sorted(job.usage.calls, key=lambda call: call["call"])  # they have no order
            facts = (job.state, job.run, job.attempt, job.result, job.usage.tokens, job.usage.costs)
            picture[job.id] = (*facts, calls)
        return picture


def effect_problems(
    calls: Sequence[ProviderCall], jobs: dict[str, Job], losses: dict[str, int]
) -> list[str]:
    """Effects that were had more often than once and once more per run that was lost (I9).

    An effect is known by the call's idempotency key, "job/step", or by its model, "job/run/n": one of these runs once.
    """
    done = [call for call in calls if call.status == 200]
    named = Counter(call.key for call in done if call.key)
    once = Counter(call.model for call in done if "/" in call.model)
    problems = [f"{call} was called {n} times" for call, n in once.items() if n > 1]
    for key, n in named.items():
        id = key.partition("/")[0]
        if id in jobs and n > 1 + losses[id]:
            problems.append(f"{key} was done {n} times, {losses[id]} runs of it were lost")
    return problems
