"""The command `glidemq`.

Commands that print tables or lines take `--json`; those that print one thing whole print JSON anyway. The server is `--url`, else GLIDEMQ_URL, else the embedded one of this folder.
Other packages add commands through the entry point group `glidemq.commands`.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import logging
import sys
import threading
from collections import Counter
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import typer

from . import JobHandle, Queue, Worker
from ._cli_budgets import audit, budget_app
from ._cli_checks import fsck, outbox
from ._cli_tools import (
    AsJson,
    JobId,
    LedgerName,
    QueueName,
    Url,
    fail,
    moment,
    on,
    on_ledger,
    parsed,
    print_json,
    print_table,
)
from .errors import GlideMQError, JobNotFound
from .job import TERMINAL, Job, State
from .stream import Chunk

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Jobs on Valkey.")
server_app = typer.Typer(no_args_is_help=True, help="The embedded server of a folder.")
app.add_typer(server_app, name="server")
app.add_typer(budget_app, name="budget")

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
    value = parsed(data)

    async def use(opened: Queue) -> JobHandle:
        return await opened.add(
            name, value, job_id=job_id, delay=delay, priority=priority, attempts=attempts
        )

    job = on(queue, url, use)
    print(job.id)
    if job.is_duplicate:
        print("it was there before: nothing was added", file=sys.stderr)


@app.command()
def get(queue: QueueName, id: JobId, url: Url = None) -> None:
    """Print all that is known of a job, as JSON."""
    job = on(queue, url, lambda opened: opened.get(id))
    if job is None:
        fail(f"no job {id!r} in queue {queue!r}")
    print_json(job)


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
    jobs = on(queue, url, lambda opened: opened.jobs(state, start=start, limit=limit))
    if as_json:
        print_json(jobs)
        return
    print_table(
        ("id", "name", "attempt", "run", "created", "worker", "tokens", "cost", "reason", "error"),
        (
            (
                *(job.id, job.name, job.attempt, job.run, moment(job.created_at), job.worker),
                *(f"{job.usage.total_tokens:,}", _money(job), job.reason),
                job.error.message if job.error else "",
            )
            for job in jobs
        ),
    )


@app.command()
def counts(queue: QueueName, url: Url = None, as_json: AsJson = False) -> None:
    """Print how many jobs are in each state, and whether the queue is paused."""

    async def use(opened: Queue) -> tuple[dict[State, int], bool]:
        return await opened.counts(), await opened.is_paused()

    numbers, is_paused = on(queue, url, use)
    if as_json:
        print_json(numbers)
        return
    for state, number in numbers.items():
        print(f"{state:18}{number:>10,}")
    if is_paused:
        print("the queue is paused")


@app.command()
def workers(queue: QueueName, url: Url = None, as_json: AsJson = False) -> None:
    """List the workers of the last ten minutes: seconds since their last call, and how many jobs each holds."""
    found = on(queue, url, lambda opened: opened.workers())
    if as_json:
        print_json(found)
        return
    print_table(("name", "idle", "jobs"), ((w.name, f"{w.idle:.1f}", w.jobs) for w in found))


@app.command()
def stream(
    queue: QueueName,
    id: JobId,
    after: Annotated[str | None, typer.Option(help="Go on behind this chunk id.")] = None,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Print a job's stream while it arrives, to its end."""

    async def use(opened: Queue) -> Chunk | None:
        chunk = None
        async for chunk in opened.stream(id, after=after):
            if as_json:
                print_json(chunk, indent=None)
            elif chunk.type == "content":
                print(chunk.content, end="", flush=True)
            else:
                print(f"\n[{_told(chunk)}]", file=sys.stderr)
        return chunk

    last = on(queue, url, use)
    if last is not None and last.type == "end" and last.content == "gone":
        raise typer.Exit(1)


@app.command()
def log(queue: QueueName, id: JobId, url: Url = None) -> None:
    """Print what a job's handler logged."""

    async def use(opened: Queue) -> list[str]:
        lines = await opened.log(id)
        if not lines and await opened.get(id) is None:
            raise JobNotFound(id, queue=queue)
        return lines

    for line in on(queue, url, use):
        print(line)


@app.command()
def result(
    queue: QueueName,
    id: JobId,
    timeout: Annotated[float | None, typer.Option(help="Seconds.")] = None,
    url: Url = None,
) -> None:
    """Wait for a job's result and print it as JSON."""
    try:
        print_json(on(queue, url, lambda opened: opened.result(id, timeout=timeout)))
    except TimeoutError:
        fail(f"job {id!r} has not ended within {timeout} s; it goes on")


@app.command()
def cancel(
    queue: QueueName,
    id: Annotated[str | None, typer.Argument(metavar="ID")] = None,
    *,
    all: Annotated[State | None, typer.Option(help="Instead: all jobs in this state.")] = None,
    url: Url = None,
) -> None:
    """Cancel a job, whatever its state, or all jobs of a state (pause the queue first, or others take their place)."""
    if (id is None) == (all is None):
        raise typer.BadParameter("give an ID or --all STATE")
    if all in TERMINAL:
        raise typer.BadParameter(f"{all} jobs have ended", param_hint="--all")
    if id is not None:
        print(on(queue, url, lambda opened: opened.cancel(id)))
    elif all is not None:
        ends = on(queue, url, lambda opened: _cancel_all(opened, all))
        print(", ".join(f"{end}: {number}" for end, number in sorted(ends.items())) or "none")


@app.command()
def retry(
    queue: QueueName,
    id: JobId,
    *,
    fresh: Annotated[bool, typer.Option(help="Forget the results of its steps, too.")] = False,
    url: Url = None,
) -> None:
    """Put a failed or cancelled job back into the line."""
    on(queue, url, lambda opened: opened.retry(id, fresh=fresh))


@app.command()
def promote(queue: QueueName, id: JobId, url: Url = None) -> None:
    """Start a delayed job now."""
    on(queue, url, lambda opened: opened.promote(id))


@app.command()
def remove(queue: QueueName, id: JobId, url: Url = None) -> None:
    """Remove a job that is not running."""
    on(queue, url, lambda opened: opened.remove(id))


# -- people -----------------------------------------------------------------


@app.command()
def suspended(
    queue: QueueName, *, start: int = 0, limit: int = 20, url: Url = None, as_json: AsJson = False
) -> None:
    """List the jobs that wait for a signal: which one, why, since when."""
    waiting = on(queue, url, lambda opened: opened.suspended(start=start, limit=limit))
    if as_json:
        print_json(waiting)
        return
    print_table(
        ("id", "name", "waits for", "reason", "since", "until"),
        (
            (
                *(job.job_id, job.job_name, job.waits_for, job.reason),
                *(moment(job.since), moment(job.deadline)),
            )
            for job in waiting
        ),
    )


@app.command()
def signal(
    queue: QueueName,
    id: JobId,
    name: str,
    data: Annotated[str, typer.Argument(help="JSON")] = "null",
    *,
    signal_id: Annotated[str | None, typer.Option(help="Sent twice it is one message.")] = None,
    url: Url = None,
) -> None:
    """Send a message to a job: its next wait for that name takes it."""
    value = parsed(data)

    async def use(opened: Queue) -> Job | None:
        await opened.signal(id, name, value, signal_id=signal_id)
        return await opened.get(id)

    job = on(queue, url, use)
    if job is not None and job.state == "suspended":
        print(f"kept for later: the job waits for {job.waits_for!r}", file=sys.stderr)


# -- queues -----------------------------------------------------------------


@app.command()
def pause(queue: QueueName, url: Url = None) -> None:
    """Stop handing out jobs; running ones go on."""
    on(queue, url, lambda opened: opened.pause())


@app.command()
def resume(queue: QueueName, url: Url = None) -> None:
    """Hand out jobs again."""
    on(queue, url, lambda opened: opened.resume())


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
                print_json(event, indent=None)
            else:
                print(f"{event.id:22} {event.type:18} {event.job_id}", flush=True)

    with contextlib.suppress(KeyboardInterrupt):
        on(queue, url, use)


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

    print_json(on(queue, url, use))


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
    run = Worker(queue, _imported(handler), connection=url, concurrency=concurrency).run
    if not logging.getLogger().handlers:  # the handler's module has not set up any
        logging.basicConfig(format="%(message)s")
        logging.getLogger(__package__).setLevel(logging.INFO)
    asyncio.run(run())


# -- limits -----------------------------------------------------------------


@app.command()
def limiter(name: str, ledger: LedgerName = "main", url: Url = None) -> None:
    """Print what is used and left of a limiter, as JSON."""
    print_json(on_ledger(ledger, url, lambda opened: opened.limiter_state(name)))


for _check in (fsck, audit, outbox):
    app.command()(_check)


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
    print_json(_embedded().status(folder))


@server_app.command("stop")
def server_stop(folder: Folder = None) -> None:
    """Stop the folder's server, also if it is in use. Its data stay."""
    print("stopped" if _embedded().stop(folder) else "was not running")


# -- below the commands -----------------------------------------------------


def _embedded() -> ModuleType:
    # Loaded only where it is used: its file locks are not there on every platform.
    return importlib.import_module(".embedded", __package__)


def _told(chunk: Chunk) -> str:
    fields = chunk.fields or {}
    about = fields.get("name") or fields.get("model")
    return " ".join(str(part) for part in (chunk.type, about, chunk.content) if part)


def _money(job: Job) -> str:
    cost = job.usage.total_cost
    return "" if cost is None else f"{cost:,f}"


async def _cancel_all(queue: Queue, state: State) -> Counter[str]:
    """Cancel all jobs of a state; answers how often `cancel` said what."""

    async def cancelled(id: str) -> str:
        try:
            return await queue.cancel(id)
        except JobNotFound:
            return "gone"

    ends: Counter[str] = Counter()
    # Those that run stay where they are until their handlers have stopped; the others leave the list.
    while page := await queue.jobs(state, start=ends["requested"], limit=1000):
        ends.update(await asyncio.gather(*(cancelled(job.id) for job in page)))
    return +ends


def _imported(path: str) -> Any:
    module, _, name = path.partition(":")
    if not name:
        raise typer.BadParameter(f"{path!r} is not module:name", param_hint="HANDLER")
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise  # of something that it imports
        raise typer.BadParameter(
            f"there is no module {error.name!r} here", param_hint="HANDLER"
        ) from error
    if not hasattr(found, name):
        raise typer.BadParameter(f"module {module!r} has no {name!r}", param_hint="HANDLER")
    return getattr(found, name)


if __name__ == "__main__":
    main()
