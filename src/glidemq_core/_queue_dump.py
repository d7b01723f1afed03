"""Everything that a queue holds on the server, read with plain commands. A tool's way: it scans, and is not atomic."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias, cast

from . import _keys

Read: TypeAlias = Callable[..., Awaitable[Any]]
"""Sends a command: `await read("HGETALL", key)`. Maps may come as dicts or as flat lists."""

_SCAN_COUNT: Final = 1000
_MAX_ENTRIES: Final = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyFacts:
    """A key by itself. `ttl` in milliseconds; None: it stays for ever."""

    type: str
    ttl: int | None


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry of a stream."""

    id: str
    fields: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class JobDump:
    """What one job holds.

    Attributes:
        fields: Its hash; empty where only other keys are left of it.
        satellites: The names of the keys it owns.
        chunks: Its stream, the newest 20,000 entries; `chunks_trimmed`: older ones are missing.
        lists: Lengths of its list satellites.
        hashes: Its other satellites by name: "usage", "steps", "mailbox", "children".
    """

    fields: Mapping[str, str]
    satellites: frozenset[str]
    chunks: tuple[Entry, ...] = ()
    chunks_trimmed: bool = False
    lists: Mapping[str, int] = field(default_factory=dict[str, int])
    hashes: Mapping[str, Mapping[str, str]] = field(default_factory=dict[str, Mapping[str, str]])


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueDump:
    """What a queue holds.

    Attributes:
        now: The server's clock, epoch milliseconds.
        keys: Every key by its name below the root ("job:81", "waiting").
        indexes: Per state index, and "expiring", the scores by job id; "outbox_due" by entry id.
        jobs: By id.
        meta: The queue's own hash.
        wake: Length of the list of wake tokens.
        stuck: Ids of the outbox's entries that could not be relayed.
    """

    now: int
    keys: Mapping[str, KeyFacts]
    indexes: Mapping[str, Mapping[str, float]]
    jobs: Mapping[str, JobDump]
    meta: Mapping[str, str]
    wake: int
    stuck: frozenset[str] = frozenset()


async def dump_queue(read: Read, queue: str, *, now: int | None = None) -> QueueDump:
    """Read everything below a queue's root key."""
    root = _keys.root_of(_keys.check_name(queue, "queue"))
    keys = await _read_keys(read, root)
    indexes = {
        name: await _read_scores(read, _keys.index(root, name))
        for name in (*_keys.INDEXES, "expiring", "outbox_due")
    }
    if now is None:
        time = await read("TIME")
        now = int(time[0]) * 1000 + int(time[1]) // 1000
    owned: dict[str, set[str]] = defaultdict(set)
    for name in keys:
        if name.startswith("job:"):
            _, id, *satellite = name.split(":", 2)
            owned[id].update(satellite or [""])
    return QueueDump(
        now=now,
        keys=keys,
        indexes=indexes,
        jobs={id: await _read_job(read, root, id, owned[id]) for id in sorted(owned)},
        meta=_texts(await read("HGETALL", f"{root}:meta")),
        wake=await read("LLEN", _keys.wake(root)),
        stuck=frozenset(map(_text, await read("HKEYS", f"{root}:outbox_stuck") or ())),
    )


async def _read_keys(read: Read, root: str) -> dict[str, KeyFacts]:
    found: dict[str, KeyFacts] = {}
    pattern = "".join(f"\\{letter}" if letter in "*?[]\\" else letter for letter in root) + ":*"
    cursor = b"0"
    while True:
        cursor, names = await read(
            "SCAN", cursor.decode(), "MATCH", pattern, "COUNT", str(_SCAN_COUNT)
        )
        for raw in names:
            name = raw.decode()
            ttl = await read("PTTL", name)
            if ttl != -2:  # else it has gone meanwhile
                type_ = await read("TYPE", name)
                facts = KeyFacts(type=_text(type_), ttl=None if ttl == -1 else ttl)
                found[name.removeprefix(f"{root}:")] = facts
        if cursor == b"0":
            return found


async def _read_scores(read: Read, key: str) -> dict[str, float]:
    return {
        id: float(score)
        for id, score in _texts(await read("ZRANGE", key, "0", "-1", "WITHSCORES")).items()
    }


async def _read_job(read: Read, root: str, id: str, owned: set[str]) -> JobDump:
    """`owned`: the names of its satellites, and "" for the hash itself."""
    satellites = frozenset(owned - {""})
    fields = _texts(await read("HGETALL", _keys.job(root, id))) if "" in owned else {}
    chunks: list[Entry] = []
    trimmed = False
    if "chunks" in satellites:
        key = _keys.satellite(root, id, "chunks")
        newest = _entries(await read("XREVRANGE", key, "+", "-", "COUNT", str(_MAX_ENTRIES)))
        chunks = sorted(newest, key=lambda entry: tuple(int(part) for part in entry.id.split("-")))
        if chunks:  # else it has expired meanwhile
            facts = _texts(await read("XINFO", "STREAM", key))
            trimmed = int(facts["entries-added"]) > len(chunks)
    lists = {
        name: await read("LLEN", _keys.satellite(root, id, name))
        for name in satellites & {"log", "errors"}
    }
    hashes = {
        name: _texts(await read("HGETALL", _keys.satellite(root, id, name)))
        for name in satellites & {"usage", "steps", "mailbox", "children"}
    }
    return JobDump(
        fields=fields,
        satellites=satellites,
        chunks=tuple(chunks),
        chunks_trimmed=trimmed,
        lists=lists,
        hashes=hashes,
    )


def _entries(reply: Any) -> list[Entry]:
    if reply is None:
        return []
    is_map = isinstance(reply, dict)
    rows = cast("dict[Any, Any]", reply).items() if is_map else cast("list[Any]", reply)
    return [Entry(_text(id), _texts(fields)) for id, fields in rows]


def _texts(reply: Any) -> dict[str, str]:
    """A map of texts, whether it came as a dict, as pairs or flat. Bytes that are no UTF-8 are shown escaped."""
    if reply is None:
        return {}
    if isinstance(reply, dict):
        pairs: Iterable[Any] = cast("dict[Any, Any]", reply).items()
    elif reply and isinstance(reply[0], list):
        pairs = reply
    else:
        pairs = zip(reply[::2], reply[1::2], strict=True)
    return {_text(name): _text(value) for name, value in pairs}


def _text(value: Any) -> str:
    return value.decode(errors="backslashreplace") if isinstance(value, bytes) else str(value)
