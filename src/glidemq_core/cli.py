"""The command `glidemq`.

Commands that print data take `--json`. The server is `--url`, else GLIDEMQ_URL, else the embedded one of this folder.
Other packages add commands through the entry point group `glidemq.commands`.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import importlib
import json
import sys
import threading
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, NoReturn, TypeVar, cast

import typer
from rich.console import Console
from rich.table import Table

from . import Ledger, Queue, Worker
from .errors import GlideMQError
from .job import State

Result = TypeVar("Result")

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Jobs on Valkey.")
server_app = typer.Typer(no_args_is_help=True, help="The embedded server of a folder.")
app.add_typer(server_app, name="server")
budget_app = typer.Typer(no_args_is_help=True, help="What may be spent, and what has been.")
app.add_typer(budget_app, name="budget")

QueueName = Annotated[str, typer.Argument(metavar="QUEUE")]
JobId = Annotated[str, typer.Argument(metavar="ID")]
Url = Annotated[str | None, typer.Option("--url", envvar="GLIDEMQ_URL", help="valkey://host:port")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
BudgetId = Annotated[str, typer.Argument(metavar="BUDGET")]
LedgerName = Annotated[str, typer.Option("--ledger", help="The name of its ledger.")]
Folder = Annotated[
    Path | None, typer.Option("--dir", help="The server's folder; default: the nearest .glidemq.")
]


def main() -> None:
    """Run the command line; an error of this package ends it with one line and exit code 1."""
    for entry in metadata.entry_points(group="glidemq.commands"):
        app.command(entry.name)(entry.load())
    try:
        app()
    except GlideMQError as error:
        print(f"glidemq: {error}", file=sys.stderr)
        sys.exit(1)


# -- jobs -------------------------------------------------------------------


@app.command()
def add(
    queue: QueueName,
    name: str,
    data: Annotated[str, typer.Argument(help="JSON")] = "null",
    *,
    job_id: Annotated[str | None, typer.Option(help="An id of your own.")] = None,
    delay: Annotated[float, typer.Option(help="Seconds.")] = 0,
    priority: Annotated[int, typer.Option(help="0 to 2048, lower is sooner.")] = 1000,
    attempts: Annotated[int, typer.Option(help="How often a failing job is tried.")] = 1,
    url: Url = None,
) -> None:
    """Add a job and print its id."""
    value = _parsed(data)

    async def use(opened: Queue) -> str:
        job = await opened.add(
            name, value, job_id=job_id, delay=delay, priority=priority, attempts=attempts
        )
        return job.id

    print(_on(queue, url, use))


@app.command()
def get(queue: QueueName, id: JobId, url: Url = None) -> None:
    """Print all that is known of a job, as JSON."""
    job = _on(queue, url, lambda opened: opened.get(id))
    if job is None:
        _fail(f"no job {id!r} in queue {queue!r}")
    _print_json(job)


@app.command(name="list")
def list_jobs(
    queue: QueueName,
    state: Annotated[State, typer.Argument(help="Its jobs are listed.")],
    *,
    start: int = 0,
    limit: int = 20,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """List the jobs of a state."""
    jobs = _on(queue, url, lambda opened: opened.jobs(state, start=start, limit=limit))
    if as_json:
        _print_json(jobs)
        return
    table = Table("id", "name", "attempt", "run", "created", "error")
    for job in jobs:
        created = f"{job.created_at:%Y-%m-%d %H:%M:%S}" if job.created_at else ""
        table.add_row(
            job.id,
            job.name,
            str(job.attempt),
            str(job.run),
            created,
            job.error.message if job.error else "",
        )
    Console().print(table)


@app.command()
def counts(queue: QueueName, url: Url = None, as_json: AsJson = False) -> None:
    """Print how many jobs are in each state."""
    numbers = _on(queue, url, lambda opened: opened.counts())
    if as_json:
        _print_json(numbers)
        return
    for state, number in _plain(numbers).items():
        print(f"{state:18}{number:>10,}")


@app.command()
def stream(
    queue: QueueName,
    id: JobId,
    after: Annotated[str | None, typer.Option(help="Go on behind this chunk id.")] = None,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Print a job's stream while it arrives, to its end."""

    async def use(opened: Queue) -> None:
        async for chunk in opened.stream(id, after=after):
            if as_json:
                _print_json(chunk, indent=None)
            elif chunk.type == "content":
                print(chunk.content, end="", flush=True)
            else:
                print(f"\n[{chunk.type}]", file=sys.stderr)

    _on(queue, url, use)


@app.command()
def log(queue: QueueName, id: JobId, url: Url = None) -> None:
    """Print what a job's handler logged."""
    for line in _on(queue, url, lambda opened: opened.log(id)):
        print(line)


@app.command()
def result(
    queue: QueueName,
    id: JobId,
    timeout: Annotated[float | None, typer.Option(help="Seconds.")] = None,
    url: Url = None,
) -> None:
    """Wait for a job's result and print it as JSON."""
    _print_json(_on(queue, url, lambda opened: opened.result(id, timeout=timeout)))


@app.command()
def cancel(queue: QueueName, id: JobId, url: Url = None) -> None:
    """Cancel a job, whatever its state."""
    _on(queue, url, lambda opened: opened.cancel(id))


@app.command()
def retry(queue: QueueName, id: JobId, url: Url = None) -> None:
    """Put a failed or cancelled job back into the line."""
    _on(queue, url, lambda opened: opened.retry(id))


@app.command()
def promote(queue: QueueName, id: JobId, url: Url = None) -> None:
    """Start a delayed job now."""
    _on(queue, url, lambda opened: opened.promote(id))


@app.command()
def remove(queue: QueueName, id: JobId, url: Url = None) -> None:
    """Remove a job that is not running."""
    _on(queue, url, lambda opened: opened.remove(id))


# -- queues -----------------------------------------------------------------


@app.command()
def pause(queue: QueueName, url: Url = None) -> None:
    """Stop handing out jobs; running ones go on."""
    _on(queue, url, lambda opened: opened.pause())


@app.command()
def resume(queue: QueueName, url: Url = None) -> None:
    """Hand out jobs again."""
    _on(queue, url, lambda opened: opened.resume())


@app.command()
def events(
    queue: QueueName,
    after: Annotated[
        str | None, typer.Option(help="Go on behind this event; '' from the oldest.")
    ] = None,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Print what happens in a queue, until Ctrl-C."""

    async def use(opened: Queue) -> None:
        async for event in opened.events(after=after):
            if as_json:
                _print_json(event, indent=None)
            else:
                print(f"{event.id:22} {event.type:18} {event.job_id}", flush=True)

    with contextlib.suppress(KeyboardInterrupt):
        _on(queue, url, use)


@app.command()
def usage(
    queue: QueueName,
    more: Annotated[list[str] | None, typer.Argument(help="Further queues, added up.")] = None,
    *,
    last: Annotated[float | None, typer.Option(help="Seconds up to now; default: 3600.")] = None,
    start: Annotated[datetime | None, typer.Option(help="From this time (UTC) on.")] = None,
    end: Annotated[datetime | None, typer.Option(help="Up to this time (UTC).")] = None,
    model: Annotated[list[str] | None, typer.Option(help="Only this model; repeatable.")] = None,
    url: Url = None,
) -> None:
    """Print the tokens and costs of queues, per model, as JSON."""
    span = {name: at.replace(tzinfo=UTC) for name, at in (("start", start), ("end", end)) if at}

    async def use(opened: Queue) -> Any:
        return await opened.usage_summary(window=last, queues=more or (), models=model, **span)

    _print_json(_on(queue, url, use))


@app.command()
def fsck(queue: QueueName, url: Url = None) -> None:
    """Look through all keys of a queue and print what does not fit together (none: exit code 0)."""
    problems = asyncio.run(_problems(queue, url))
    for problem in problems:
        print(problem)
    if problems:
        raise typer.Exit(1)


@app.command()
def worker(
    queue: QueueName,
    handler: Annotated[
        str, typer.Argument(help="module:name of a handler, or of a mapping of them.")
    ],
    concurrency: int = 1,
    url: Url = None,
) -> None:
    """Run a worker until it is told to stop (Ctrl-C or SIGTERM lets running jobs end)."""
    sys.path.insert(0, "")  # as `python -m` does: the handler is usually in the current folder
    asyncio.run(Worker(queue, _imported(handler), connection=url, concurrency=concurrency).run())


# -- budgets ----------------------------------------------------------------


@app.command()
def audit(budget: BudgetId, ledger: LedgerName = "main", url: Url = None) -> None:
    """Recompute a budget from its entries and print what does not agree (nothing: exit code 0)."""
    found = _on_ledger(ledger, url, lambda opened: opened.audit(budget))
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
    state = _on_ledger(ledger, url, lambda opened: opened.budget(budget))
    if state is None:
        _fail(f"no budget {budget!r} in ledger {ledger!r}")
    if as_json:
        _print_json(state)
        return
    table = Table("cap", "limit", "used", "reserved", "unverified")
    for name, cap in state.caps.items():
        limit = "" if cap.limit is None else f"{cap.limit:,f}"
        parts = (cap.used, cap.reserved, cap.unverified)
        table.add_row(name, limit, *(f"{part:,f}" if part else "0" for part in parts))
    Console().print(table)
    end = f", until {state.window_end:%Y-%m-%d %H:%M %Z}" if state.window_end else ""
    print(f"on_exceeded: {state.on_exceeded}, waiting jobs: {state.waiting}{end}")


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
    entries = _on_ledger(
        ledger, url, lambda opened: opened.history(budget, limit=limit, before=before)
    )
    if as_json:
        _print_json(entries)
        return
    table = Table("id", "at", "kind", "call", "changes", "note")
    for entry in entries:
        changes = ", ".join(f"{name} {gained:+,f}" for name, gained in entry.changes.items())
        table.add_row(
            entry.id, f"{entry.at:%Y-%m-%d %H:%M:%S}", entry.kind, entry.call, changes, entry.note
        )
    Console().print(table)


@budget_app.command("raise")
def budget_raise(
    budget: BudgetId,
    *,
    tokens: Annotated[int | None, typer.Option(help="The new cap on total tokens.")] = None,
    cost: Annotated[str | None, typer.Option(help="The new cap on total cost.")] = None,
    ledger: LedgerName = "main",
    url: Url = None,
) -> None:
    """Give a budget new caps; those that are not named stay. Jobs that wait for room go on."""
    if tokens is None and cost is None:
        raise typer.BadParameter("give --tokens or --cost")

    async def use(opened: Ledger) -> bool:
        state = await opened.budget(budget)
        if state is None:
            return False
        new = state.as_budget()
        if tokens is not None:
            new = dataclasses.replace(new, max_total_tokens=tokens)
        if cost is not None:
            new = dataclasses.replace(new, max_total_cost=cost)
        await opened.update_budget(budget, new)
        return True

    if not _on_ledger(ledger, url, use):
        _fail(f"no budget {budget!r} in ledger {ledger!r}")


# -- the embedded server ----------------------------------------------------


@server_app.command("run")
def server_run(folder: Folder = None) -> None:
    """Keep the folder's server running until Ctrl-C, and print its URL.

    Not needed by programs, which start it themselves; it keeps the server up while none of them runs.
    """
    print(_embedded().ensure_running(folder), flush=True)
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        return


@server_app.command("status")
def server_status(folder: Folder = None) -> None:
    """Print whether the folder's server runs, and where."""
    _print_json(_embedded().status(folder))


@server_app.command("stop")
def server_stop(folder: Folder = None) -> None:
    """Stop the folder's server, also if it is in use. Its data stay."""
    print("stopped" if _embedded().stop(folder) else "was not running")


# -- below the commands -----------------------------------------------------


def _embedded() -> ModuleType:
    # Loaded only where it is used: its file locks are not there on every platform.
    return importlib.import_module(".embedded", __package__)


async def _problems(queue: str, url: str | None) -> list[str]:
    from . import _client, fsck
    from ._target import resolve

    client = await _client.shared_client(resolve(url))
    try:
        return await fsck.fsck(client, queue)
    finally:
        await _client.release_client(client)


def _on(name: str, url: str | None, use: Callable[[Queue], Awaitable[Result]]) -> Result:
    async def run() -> Result:
        async with Queue(name, connection=url) as queue:
            return await use(queue)

    return asyncio.run(run())


def _on_ledger(name: str, url: str | None, use: Callable[[Ledger], Awaitable[Result]]) -> Result:
    async def run() -> Result:
        async with Ledger(name, connection=url) as ledger:
            return await use(ledger)

    return asyncio.run(run())


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is not JSON: {error}") from error


def _imported(path: str) -> Any:
    module, _, name = path.partition(":")
    if not name:
        raise typer.BadParameter(f"{path!r} is not module:name", param_hint="HANDLER")
    return getattr(importlib.import_module(module), name)


def _plain(value: object) -> Any:
    """Dataclasses as dictionaries; everything else is left for `str`."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    return value


def _print_json(value: object, *, indent: int | None = 2) -> None:
    if isinstance(value, list):
        value = [_plain(item) for item in cast("list[object]", value)]
    print(json.dumps(_plain(value), indent=indent, default=_text, ensure_ascii=False), flush=True)


def _text(value: object) -> str:
    """What JSON has no form for: instants as ISO 8601, the rest (decimals, paths) as its text."""
    return value.isoformat() if isinstance(value, datetime) else str(value)


def _fail(message: str) -> NoReturn:
    print(f"glidemq: {message}", file=sys.stderr)
    raise typer.Exit(1)


if __name__ == "__main__":
    main()
