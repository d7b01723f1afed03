"""The commands about budgets."""

from __future__ import annotations

import dataclasses
from decimal import Decimal
from typing import Annotated, NoReturn

import typer

from . import BudgetState, Ledger
from ._cli_tools import (
    AsJson,
    LedgerName,
    Url,
    fail,
    figure,
    moment,
    on_ledger,
    print_json,
    print_table,
)

BudgetId = Annotated[str, typer.Argument(metavar="BUDGET")]

budget_app = typer.Typer(no_args_is_help=True, help="What may be spent, and what has been.")


def audit(budget: BudgetId, ledger: LedgerName = "main", url: Url = None) -> None:
    """Recompute a budget from its entries and print what does not agree (nothing: exit code 0)."""
    found = on_ledger(ledger, url, lambda opened: opened.audit(budget))
    for problem in found.problems:
        print(problem)
    if found.problems:
        raise typer.Exit(1)
    print(f"{found.entries} entries and {found.open_calls} open calls agree")


@budget_app.command("show")
def budget_show(
    budget: BudgetId, ledger: LedgerName = "main", url: Url = None, as_json: AsJson = False
) -> None:
    """Print a budget's caps, and how far they are used up."""
    state = on_ledger(ledger, url, lambda opened: opened.budget(budget))
    if state is None:
        _unknown(budget, ledger)
    if as_json:
        print_json(state)
        return
    _print_state(state)


@budget_app.command("list")
def budget_list(
    *,
    start: int = 0,
    limit: int = 100,
    ledger: LedgerName = "main",
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """List the budgets with their caps; not those of single jobs and flows."""
    states = on_ledger(ledger, url, lambda opened: opened.budgets(start=start, limit=limit))
    if as_json:
        print_json(states)
        return
    rows: list[list[str]] = []
    for state in states:
        for name, cap in state.caps.items():
            if cap.limit is not None:
                parts = (cap.limit, cap.used, cap.reserved)
                rows.append(
                    [state.id, name, *map(figure, parts), state.on_exceeded, str(state.waiting)]
                )
    print_table(["budget", "cap", "limit", "used", "reserved", "on_exceeded", "waiting"], rows)


@budget_app.command("history")
def budget_history(
    budget: BudgetId,
    *,
    limit: Annotated[int, typer.Option(help="How many entries, newest first.")] = 20,
    before: Annotated[str, typer.Option(help="Go on behind this entry.")] = "",
    ledger: LedgerName = "main",
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Print what happened to a budget: settles, late ones, unverified spend, changes of its caps."""
    entries = on_ledger(
        ledger, url, lambda opened: opened.history(budget, limit=limit, before=before)
    )
    if not entries and not before:  # a budget's first entry is that it was opened
        _unknown(budget, ledger)
    if as_json:
        print_json(entries)
        return
    rows: list[list[str]] = []
    for entry in entries:
        changes = ", ".join(
            f"{name} {Decimal(gained):+,f}" for name, gained in entry.changes.items()
        )
        rows.append([entry.id, moment(entry.at), entry.kind, entry.call, changes, entry.note])
    print_table(("id", "at", "kind", "call", "changes", "note"), rows)


@budget_app.command("alerts")
def budget_alerts(
    *,
    limit: Annotated[int, typer.Option(help="How many, newest first.")] = 20,
    ledger: LedgerName = "main",
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """List the caps, of whatever budget, that have reached 50, 80 or 100 percent."""
    alerts = on_ledger(ledger, url, lambda opened: opened.alerts(limit=limit))
    if as_json:
        print_json(alerts)
        return
    print_table(
        ("at", "budget", "cap", "percent", "used", "limit"),
        (
            (moment(a.at), a.budget, a.cap, a.percent, figure(a.used), figure(a.limit))
            for a in alerts
        ),
    )


@budget_app.command("raise")
def budget_raise(
    budget: BudgetId,
    *,
    tokens: Annotated[int | None, typer.Option(help="The new cap on total tokens.")] = None,
    cost: Annotated[str | None, typer.Option(help="The new cap on total cost.")] = None,
    ledger: LedgerName = "main",
    url: Url = None,
) -> None:
    """Give a budget new caps and print it; caps not named stay. Jobs that wait for room go on."""
    if tokens is None and cost is None:
        raise typer.BadParameter("give --tokens or --cost")

    async def use(opened: Ledger) -> BudgetState | None:
        state = await opened.budget(budget)
        if state is None:
            return None
        new = state.as_budget()
        if tokens is not None:
            new = dataclasses.replace(new, max_total_tokens=tokens)
        if cost is not None:
            new = dataclasses.replace(new, max_total_cost=cost)
        return await opened.update_budget(budget, new)

    raised = on_ledger(ledger, url, use)
    if raised is None:
        _unknown(budget, ledger)
    _print_state(raised)


def _unknown(budget: str, ledger: str) -> NoReturn:
    fail(f"no budget {budget!r} in ledger {ledger!r}")


def _print_state(state: BudgetState) -> None:
    rows: list[list[str]] = []
    for name, cap in state.caps.items():
        limit = "" if cap.limit is None else figure(cap.limit)
        rows.append([name, limit, figure(cap.used), figure(cap.reserved), figure(cap.unverified)])
    print_table(("cap", "limit", "used", "reserved", "unverified"), rows)
    end = f", until {state.window_end:%Y-%m-%d %H:%M %Z}" if state.window_end else ""
    print(f"on_exceeded: {state.on_exceeded}, waiting jobs: {state.waiting}{end}")
