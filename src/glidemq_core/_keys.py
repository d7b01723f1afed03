"""Names of queues and jobs, and every key made of them. Twin of lua/lib/layout.lua."""

from __future__ import annotations

import itertools
import os
import re
import secrets
import time
from collections.abc import Iterable
from typing import Final

from .errors import InvalidOption

INDEXES: Final = (
    "waiting",
    "suspects",
    "delayed",
    "active",
    "suspended",
    "waiting_children",
    "completed",
    "failed",
    "cancelled",
)
SATELLITES: Final = ("chunks", "log", "errors", "usage", "steps", "mailbox", "children")
_SINGLES: Final = (
    "meta",
    "wake",
    "workers",
    "expiring",
    "events",
    "outbox",
    "outbox_stuck",
    "outbox_due",
    "models",
    "news",
)

_MAX_NAME = 256
# Braces would move a key to another cluster slot, a colon would make it another key; the rest breaks lists and logs.
_FORBIDDEN: Final = re.compile(r"[{}:\s\x00-\x1f\x7f\ud800-\udfff]")
_NO_TEXT: Final = re.compile(r"[\x00-\x1f\ud800-\udfff]")
_PLACE: Final = re.compile(r"[0-9]{1,19}-[0-9]{1,19}")

_ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"
_PAIRS: Final = tuple(high + low for high in _ALPHABET for low in _ALPHABET)


def check_name(value: object, field: str) -> str:
    """Check the name of a queue, job, worker or signal.

    Raises:
        InvalidOption: It is not a text of 1 to 256 characters free of braces, colons, white space and controls.
    """
    if not isinstance(value, str):
        raise InvalidOption(field, value, "not a text")
    if not 0 < len(value) <= _MAX_NAME:
        raise InvalidOption(field, value, f"not 1 to {_MAX_NAME} characters long")
    found = _FORBIDDEN.search(value)
    if found:
        raise InvalidOption(field, value, f"{found.group()!r} is not allowed in a name")
    return value


def check_id(value: object, field: str = "id") -> str:
    """Check the id of a budget, limiter or model call: it ends a key, and so may hold nearly anything.

    Raises:
        InvalidOption: It is not a text of 1 to 256 characters without controls.
    """
    if not isinstance(value, str) or not 0 < len(value) <= _MAX_NAME or _NO_TEXT.search(value):
        raise InvalidOption(
            field, value, f"not a text of 1 to {_MAX_NAME} characters without controls"
        )
    return value


def call_id(job: str, call: str) -> str:
    """A model call's id in the ledger, which all jobs share: one that its handler has made up is its job's own."""
    return call if call.startswith(f"{job}/") else f"{job}//{call}"


def check_list(names: Iterable[str], field: str) -> list[str]:
    """Check a list of names, not yet the names.

    Raises:
        InvalidOption: It is none; a text is none, either.
    """
    if isinstance(names, str) or not isinstance(names, Iterable):  # pyright: ignore[reportUnnecessaryIsInstance] checked for untyped callers
        raise InvalidOption(field, names, "not a list of names")
    return list(names)


def check_place(value: object, field: str) -> str:
    """Check the place of a chunk, an event or an entry, from which to go on; "" (or None): from the beginning.

    Raises:
        InvalidOption: It is none.
    """
    if value is None or value == "":
        return ""
    if not isinstance(value, str) or not _PLACE.fullmatch(value):
        raise InvalidOption(field, value, "not the id of a chunk, an event or an entry")
    return value


def root_of(queue: str) -> str:
    """The root key of a queue; the braces pin all of its keys to one slot."""
    return f"glidemq:{{{queue}}}"


def ledger_root(name: str) -> str:
    """The root key of a ledger. No queue can have it: their names are free of colons."""
    return f"glidemq:{{ledger:{name}}}"


def index(root: str, name: str) -> str:
    """A state's sorted set of job ids."""
    return f"{root}:{name}"


def job(root: str, job_id: str) -> str:
    """A job's hash."""
    return f"{root}:job:{job_id}"


def satellite(root: str, job_id: str, name: str) -> str:
    """A key that a job owns beside its hash."""
    return f"{root}:job:{job_id}:{name}"


def wake(root: str) -> str:
    """The list that idle workers block on."""
    return f"{root}:wake"


def inbox(root: str, worker: str) -> str:
    """The list that one worker blocks on always."""
    return f"{root}:inbox:{worker}"


def news(root: str) -> str:
    """The channel that tells which jobs have new chunks or have ended."""
    return f"{root}:news"


def all_names(root: str) -> dict[str, str]:
    """The layout spelled out, for the comparison with the Lua side."""
    names = {f"index:{name}": index(root, name) for name in INDEXES}
    names |= {f"satellite:{name}": satellite(root, "ID", name) for name in SATELLITES}
    names |= {name: f"{root}:{name}" for name in _SINGLES}
    return names | {
        "job": job(root, "ID"),
        "inbox": inbox(root, "W"),
        "turn": f"{root}:turn:W",
        "removed": f"{root}:removed:7",
        "minute": f"{root}:minute:7",
        "hour": f"{root}:hour:7",
        "generation": f"{root}:generation:main/b",
    }


class IdMaker:
    """Makes job ids: 9 digits of time, 4 of a counter, 7 of this process; they sort by the time they were made."""

    def __init__(self) -> None:
        self._pid = 0
        self._process = ""
        self._counter = itertools.count()

    def __call__(self) -> str:
        if self._pid != os.getpid():
            self._pid = os.getpid()
            self._process = _digits(secrets.randbits(35), 7)
            self._counter = itertools.count(secrets.randbits(19))
        return (
            _digits(time.time_ns() // 1_000_000, 9)
            + _digits(next(self._counter) & 0xFFFFF, 4)
            + self._process
        )


def _digits(number: int, width: int) -> str:
    pairs: list[str] = []
    for _ in range((width + 1) // 2):
        pairs.append(_PAIRS[number & 1023])
        number >>= 10
    pairs.reverse()
    return "".join(pairs)[-width:]


new_id: Final = IdMaker()
