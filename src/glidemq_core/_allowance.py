"""What a running job may still spend, for handlers that plan: `job.budget`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from ._amounts import nano_costs, token_counts
from ._units import Money
from .budget import BudgetState

if TYPE_CHECKING:
    from ._gate import Gate


class Grant:
    """Something set aside by `job.budget.try_reserve`. It ends with the run, or by `release()`, and counts as nothing."""

    __slots__ = ("_call", "_gate")

    def __init__(self, gate: Gate, call: str) -> None:
        self._gate = gate
        self._call = call

    async def release(self) -> None:
        """Give it back: the calls that it was for reserve for themselves."""
        await self._gate.settle(self._call, tokens={}, costs={}, unused=True)


class Allowance:
    """The budgets that a running job spends from."""

    __slots__ = ("_gate", "_next_call", "ids")

    def __init__(self, gate: Gate, ids: Sequence[str], next_call: Callable[[], str]) -> None:
        self._gate = gate
        self._next_call = next_call
        self.ids = ids

    async def state(self, id: str | None = None) -> BudgetState | None:
        """A budget as it is now: the named one, else the first of the job's; None if there is none."""
        name = id or next(iter(self.ids), None)
        return None if name is None else await self._gate.ledger.budget(name)

    async def try_reserve(
        self, tokens: int | Mapping[str, int] = 0, *, costs: Mapping[str, Money] | None = None
    ) -> Grant | None:
        """Ask before something is begun (another agent, a long answer): is there room for it in all of the job's budgets?

        Args:
            tokens: How many (they weigh as "input" does), or how many per category.
            costs: Amounts of money per name, "total" among them.

        Returns:
            What was set aside, held until it is released or the run ends (parks are ends of runs, too); None if a
            budget leaves less. Nothing is parked or raised; `state()` says how much is left.
        """
        counts = {"input": tokens} if isinstance(tokens, int) else tokens
        counted, priced = token_counts(counts), nano_costs(costs)
        call = self._next_call()
        if self.ids and not await self._gate.try_reserve(call, tokens=counted, costs=priced):
            return None
        return Grant(self._gate, call)
