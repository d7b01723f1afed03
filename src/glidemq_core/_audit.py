"""Recomputing a budget: its reserved sums from the open reservations, its used sums from the history."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from ._ledger import LedgerClient, LogEntry
from .budget import BudgetAudit, sums_of
from .errors import InvalidOption

_PAGE: Final = 1000


@dataclass(slots=True)
class _Held:
    """The open reservations, added up page by page while nothing changed."""

    stored: Mapping[str, int]
    used: Mapping[str, int]
    window: int
    sums: dict[str, int] = field(default_factory=lambda: defaultdict[str, int](int))
    count: int = 0


async def audit(client: LedgerClient, id: str, *, tries: int) -> BudgetAudit:
    """See Ledger.audit. A budget that changes while it is read is read again, up to `tries` times."""
    for _ in range(tries):
        held = await _held(client, id)
        if held is None:
            continue
        rows = await _history(client, id)
        # The history belongs to these sums only if nothing was booked in between.
        again = await client.audit_page(id, "")
        if sums_of(again[3]) == held.used:
            chain = _Chain(held.window)
            for entry in reversed(rows):
                chain.add(entry)
            problems = [*_compare("reserved", held.stored, held.sums), *chain.problems]
            problems += chain.compare(held.used)
            return BudgetAudit(
                budget=id,
                problems=tuple(problems),
                entries=chain.count,
                open_calls=held.count,
                late_refused=chain.refused,
            )
    return BudgetAudit(
        budget=id,
        problems=("it changed all the time: audit it when it is quieter",),
        entries=0,
        open_calls=0,
        late_refused=0,
    )


async def _held(client: LedgerClient, id: str) -> _Held | None:
    """Add up the pages; None if the budget changed in between."""
    after, version, held = "", None, None
    while True:
        page = await client.audit_page(id, after)
        if not page:
            raise InvalidOption("id", id, "no budget of that id")
        seen, window, stored, used, sums, count, after = page
        if held is None:
            version, held = seen, _Held(sums_of(stored), sums_of(used), window)
        elif seen != version:
            return None
        for name, amount in sums_of(sums).items():
            held.sums[name] += amount
        held.count += count
        if not after:
            return held


async def _history(client: LedgerClient, id: str) -> list[LogEntry]:
    rows: list[LogEntry] = []
    before = ""
    while True:
        page = await client.history(id, before=before, limit=_PAGE)
        rows += page
        if len(page) < _PAGE:
            return rows
        before = page[-1].id


class _Chain:
    """Each entry says what a sum gained and what it became: it must go on where the one before ended.

    An entry is written before the sums; one whose call broke off in between is an orphan: the next one starts where it
    started, not where it ended.
    """

    def __init__(self, window: int) -> None:
        self._window = window
        self._sums: dict[str, int] = {}
        self._before: dict[str, int] = {}
        self.problems: list[str] = []
        self.count = 0
        self.refused = 0

    def add(self, entry: LogEntry) -> None:
        """Take in the next entry."""
        if entry.window != self._window:
            return
        self.count += 1
        self.refused += entry.kind == "late_refused"
        for name, (gained, became) in entry.sums.items():
            self._add(name, gained, became, entry.call)

    def _add(self, name: str, gained: int, became: int, call: str) -> None:
        start = became - gained
        known = self._sums.get(name)
        if known is not None and start not in (known, self._before[name]):
            self.problems.append(f"{name}: call {call!r} starts from {start}, not from {known}")
        self._before[name] = start
        self._sums[name] = became

    def compare(self, used: Mapping[str, int]) -> list[str]:
        """Problems of the used sums against where the entries end."""
        return [
            f"used {name}: {used.get(name, 0)} stored, {became} by its entries"
            for name, became in sorted(self._sums.items())
            if used.get(name, 0) not in (became, self._before[name])
        ]


def _compare(what: str, stored: Mapping[str, int], counted: Mapping[str, int]) -> list[str]:
    return [
        f"{what} {name}: {stored.get(name, 0)} stored, {counted.get(name, 0)} counted"
        for name in sorted({*stored, *counted})
        if stored.get(name, 0) != counted.get(name, 0)
    ]
