"""What the commands share: their arguments, how they reach a server, how they print."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import sys
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, NoReturn, TypeVar, cast

import msgspec
import typer
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from . import Ledger, Queue

Result = TypeVar("Result")

QueueName = Annotated[str, typer.Argument(metavar="QUEUE")]
JobId = Annotated[str, typer.Argument(metavar="ID")]
Url = Annotated[str | None, typer.Option("--url", envvar="GLIDEMQ_URL", help="valkey://host:port")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
LedgerName = Annotated[str, typer.Option("--ledger", help="The name of its ledger.")]


def on(name: str, url: str | None, use: Callable[[Queue], Awaitable[Result]]) -> Result:
    """Use a queue."""

    async def run() -> Result:
        async with Queue(name, connection=url) as queue:
            return await use(queue)

    return asyncio.run(run())


def on_ledger(name: str, url: str | None, use: Callable[[Ledger], Awaitable[Result]]) -> Result:
    """Use a ledger."""

    async def run() -> Result:
        async with Ledger(name, connection=url) as ledger:
            return await use(ledger)

    return asyncio.run(run())


def parsed(text: str) -> Any:
    """An argument that is JSON."""
    try:
        return json.loads(text)
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is not JSON: {error}") from error


def _plain(value: object) -> Any:
    """Dataclasses and structs as dictionaries; everything else is left for `str`."""
    if isinstance(value, msgspec.Struct):
        return msgspec.structs.asdict(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    return value


def print_json(value: object, *, indent: int | None = 2) -> None:
    """Print anything as JSON."""
    if isinstance(value, list):
        value = [_plain(item) for item in cast("list[object]", value)]
    print(json.dumps(_plain(value), indent=indent, default=_text, ensure_ascii=False), flush=True)


# What is copied into the next command stands in one piece.
_WHOLE = {"id", "waits for"}


def print_table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print texts that others have written whole and as they are: no markup, no control of the terminal."""
    table = Table(*(Column(one, overflow="fold", no_wrap=one in _WHOLE) for one in head))
    for row in rows:
        table.add_row(*(Text(_printable(cell)) for cell in row))
    # Folded to 80 columns, what is piped could not be searched.
    Console(width=None if sys.stdout.isatty() else 500).print(table)


def moment(at: datetime | None) -> str:
    """An instant for a table."""
    return f"{at:%Y-%m-%d %H:%M:%S}" if at else ""


def figure(number: Decimal | int) -> str:
    """A sum of tokens or of money for a table."""
    return f"{Decimal(number):,f}"


def _printable(value: object) -> str:
    return "".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in str(value))


def _text(value: object) -> str:
    """What JSON has no form for: instants as ISO 8601, the rest (decimals, paths) as its text."""
    return value.isoformat() if isinstance(value, datetime) else str(value)


def fail(message: str) -> NoReturn:
    """End with one line and exit code 1."""
    print(f"glidemq: {message}", file=sys.stderr)
    raise typer.Exit(1)
