"""Budgets that are made for one job or one flow: opened with it, found by its id, let go some time after."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Final

from . import _keys
from ._client import Client
from ._ledger import LedgerClient
from .budget import Budget
from .job import Job
from .options import NewJob

OF_FLOW: Final = "flow-"
OF_JOB: Final = "job-"
_LIFE: Final = 30 * 86_400.0

Own = tuple[str, str, Budget]


def with_own(job: NewJob) -> tuple[NewJob, Own | None]:
    """A new job that names its own budget, and that budget's ledger, id and caps."""
    if not isinstance(job, NewJob) or not isinstance(job.budget, Budget):  # pyright: ignore[reportUnnecessaryIsInstance] checked later
        return job, None
    id = OF_JOB + _keys.new_id()
    return dataclasses.replace(job, budgets=[*job.budgets, id]), (job.ledger, id, job.budget)


async def open_own(client: Client, owns: Iterable[Own]) -> None:
    """Make them."""
    for ledger, id, budget in owns:
        opened = LedgerClient(client, ledger)
        await opened.open(id, budget)
        await opened.drop(id, after=_LIFE)


async def drop_unused(client: Client, owns: Iterable[Own]) -> None:
    """Let go of budgets whose jobs were there before."""
    for ledger, id, _ in owns:
        await LedgerClient(client, ledger).drop(id, after=0.001)


def own_of(job: Job) -> tuple[str, str] | None:
    """Ledger and id of the budget of a job's flow, else of its own; None if it has neither."""
    names = job.options.get("budgets", ())
    for kind in (OF_FLOW, OF_JOB):
        for name in names:
            if name.startswith(kind):
                return job.options.get("ledger", "main"), name
    return None
