"""What of an outbox could not be relayed: put aside on the server, tried again later, and told to people."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from . import _keys
from ._client import Client
from ._codec import texts_of
from .errors import GlideMQError

if TYPE_CHECKING:
    from ._ledger import Wake

logger = logging.getLogger(__name__)

RELAY_GIVE_UP: Final = 1.0
"""Seconds for which a relay waits for another slot: an entry comes again, and others wait behind the call."""

_WORDS: Final = 240
_TELL_EVERY: Final = 60.0
_LIMIT: Final = 100
_told: dict[str, float] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class StuckEntry:
    """An entry that could not be relayed so far.

    Attributes:
        tries: How often that was tried.
        since, due: When it first failed, and when it is tried again.
        why: The last error; empty while it waits for an older entry about the same job.
        kind: "child" (has ended), "add", "cancel", "dead" (letter), "lapse", "late" (usage); "unpark" in a ledger.
        about: The job, budget or run it is about, if it names one.
    """

    id: str
    kind: str
    about: str
    tries: int
    since: datetime
    due: datetime
    why: str


@dataclass(frozen=True, slots=True)
class Unparked:
    """What became of a ledger's entries.

    Attributes:
        done: Those that were relayed; failed: those that were not, each with the reason.
        gone: Jobs that have ended, each by its budget and by its queue's root and id on two lines.
    """

    done: list[str] = field(default_factory=list[str])
    failed: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    gone: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])


async def unpark(client: Client, ledger: str, wakes: Sequence[Wake]) -> Unparked:
    """Tell queues that there is room for jobs of theirs. One that refuses holds up none of the others."""
    told = Unparked()
    for wake in wakes:
        args: dict[str, object] = {
            "on": f"{ledger}/{wake.budget}",
            "generation": wake.generation,
            "ids": list(wake.jobs),
        }
        ended: list[bytes] = []
        try:
            if wake.queue_root:  # else it was left by a call that broke off
                _, *ended = await client.call(
                    "job_unpark", wake.queue_root, args, give_up_after=RELAY_GIVE_UP
                )
        except GlideMQError as error:
            told.failed.append((wake.entry, words_of(error)))
        else:
            told.done.append(wake.entry)
            told.gone.extend((wake.budget, f"{wake.queue_root}\n{id.decode()}") for id in ended)
    if told.failed:
        tell(_keys.ledger_root(ledger), len(told.failed), told.failed[0][1])
    return told


async def stuck_entries(client: Client, root: str) -> list[StuckEntry]:
    """What could not be relayed of the outbox of a queue or ledger: the first 100 by when they are tried again."""
    rows = await client.call("outbox_stuck", root, {"limit": _LIMIT})
    found: list[StuckEntry] = []
    for id, tries, since, why, due, flat in rows:
        fields = texts_of(flat)
        about = (fields.get(name) for name in ("id", "child", "job", "on", "name"))
        found.append(
            StuckEntry(
                id=id.decode(),
                kind=fields.get("kind", "unpark"),
                about=next(filter(None, about), ""),
                tries=tries,
                since=_instant(since),
                due=_instant(float(due)),
                why=why.decode(),
            )
        )
    return found


async def forget_entry(client: Client, root: str, id: str) -> bool:
    """Give an entry up as if it had been relayed; False: there is none.

    Raises:
        InvalidOption: `id` is not the id of an entry.
    """
    args: dict[str, object] = {"ids": [_keys.check_place(id, "id")]}
    return bool(await client.call("outbox_ack", root, args))


def words_of(error: Exception) -> str:
    """An error as it is kept with its entry."""
    return f"{type(error).__name__}: {error}"[:_WORDS]


def tell(root: str, failed: int, first: str) -> None:
    """Warn, at most once a minute, that entries could not be relayed."""
    now = time.monotonic()
    if now - _told.get(root, -_TELL_EVERY) < _TELL_EVERY:
        return
    _told[root] = now
    logger.warning(
        "%d entries of the outbox of %s could not be relayed (%s); they are tried again, others pass. If this goes on, "
        "`glidemq outbox` lists them: what they are sent to refuses them, and has to be put right",
        failed,
        root,
        first,
    )


def _instant(ms: float) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)
