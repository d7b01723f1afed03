"""The commands that look for what is wrong with a queue."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Annotated, TypeVar

import typer

from . import _client, _keys
from . import fsck as checks
from ._cli_tools import AsJson, QueueName, Url, fail, moment, print_json, print_table
from ._outbox import forget_entry, stuck_entries
from ._target import resolve

Result = TypeVar("Result")


def fsck(queue: QueueName, url: Url = None) -> None:
    """Look through all keys of a queue and print what does not fit together (none: exit code 0)."""
    problems = _through(url, lambda client: checks.fsck(client, queue))
    for problem in problems:
        print(problem)
    if problems:
        raise typer.Exit(1)


def outbox(
    queue: Annotated[str | None, typer.Argument(metavar="QUEUE")] = None,
    *,
    forget: Annotated[
        str | None, typer.Option(metavar="ID", help="Give this entry up: nobody is told of it.")
    ] = None,
    ledger: Annotated[str | None, typer.Option(help="Instead: that of this ledger.")] = None,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """List what a queue (or ledger) could not tell other queues so far: it is tried again, at most a minute apart."""
    if (queue is None) == (ledger is None):
        raise typer.BadParameter("give a QUEUE or --ledger NAME")
    if queue is not None:
        root = _keys.root_of(_keys.check_name(queue, "queue"))
    else:
        root = _keys.ledger_root(_keys.check_name(ledger, "name"))
    if forget is not None:
        if not _through(url, lambda client: forget_entry(client, root, forget)):
            fail(f"no entry {forget!r}")
        return
    found = _through(url, lambda client: stuck_entries(client, root))
    if as_json:
        print_json(found)
        return
    print_table(
        ("id", "kind", "about", "tries", "since", "next try", "why"),
        (
            (
                e.id,
                e.kind,
                e.about,
                e.tries,
                moment(e.since),
                moment(e.due),
                e.why or "behind an older one",
            )
            for e in found
        ),
    )


def _through(url: str | None, use: Callable[[_client.Client], Awaitable[Result]]) -> Result:
    async def run() -> Result:
        client = await _client.shared_client(resolve(url))
        try:
            return await use(client)
        finally:
            await _client.release_client(client)

    return asyncio.run(run())
