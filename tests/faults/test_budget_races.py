"""200 calls at once against a cap that has room for 37: exactly those are admitted, every time."""

from __future__ import annotations

import asyncio
from decimal import Decimal

import pytest

from glidemq_core import Budget
from glidemq_core.ledger import Ledger, Reservation

pytestmark = [pytest.mark.faults, pytest.mark.usefixtures("aftermath")]

CALLS = 200
FITS = 37
RUNS = 20
TOKENS = {"input": 7, "output": 3}
COST = Decimal("0.000000331")


def caps() -> list[Budget]:
    """Each has room for FITS calls and almost one more, by another cap."""
    return [
        Budget(max_total_tokens=FITS * 10 + 9),
        Budget(max_total_cost=FITS * COST + COST - Decimal("0.000000001")),
        Budget(max_tokens={"output": FITS * 3 + 2}),
    ]


@pytest.mark.parametrize("count", [1, 3])
async def test_exactly_as_many_as_fit_are_admitted_in_twenty_runs_of_twenty(url: str, count: int):
    async with Ledger(connection=url) as ledger:
        for run in range(RUNS):
            names = [f"b{run}.{number}" for number in range(count)]
            for name, budget in zip(names, caps(), strict=False):
                await ledger.open_budget(name, budget)

            async def ask(n: int, run: int = run, names: list[str] = names) -> Reservation | None:
                return await ledger.try_reserve(
                    f"j{run}/1/{n}", tokens=TOKENS, costs={"total": COST}, budgets=names, sent=True
                )

            found = await asyncio.gather(*(ask(n) for n in range(CALLS)))
            admitted = [reservation for reservation in found if reservation is not None]
            assert len(admitted) == FITS

            await asyncio.gather(
                *(one.settle(tokens=TOKENS, costs={"total": COST}) for one in admitted)
            )
            for name in names:
                state = await ledger.budget(name)
                assert state is not None
                assert state.reserved == {}
                assert (state.total_tokens, state.used["cost.total"]) == (FITS * 10, FITS * COST)
                assert (await ledger.audit(name)).problems == ()
