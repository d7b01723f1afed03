"""Carries the outbox of a queue to other slots: children to be added, children that have ended, cancellations.

Any worker of the queue may do it, and an entry may be relayed twice: the receiving functions are idempotent. Entries about
different jobs go side by side; one that fails is put aside and comes again, later each time, and holds up no other.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

from . import _keys, _outbox
from ._client import Client
from ._codec import dumps, loads, texts_of
from ._ledger import LedgerClient
from ._units import to_nano
from .errors import GlideMQError, JobNotFound, ServerError

logger = logging.getLogger(__name__)

_LIMIT: Final = 100
_RETRIES: Final = 25
_COPY_BYTES: Final = 4 * 1_048_576


@dataclass(frozen=True, slots=True)
class _Entry:
    """An entry of the outbox.

    Attributes:
        subject: What it is about, if it must not overtake older entries about that.
        is_behind: One of those has been put aside.
        tries: How often it has failed.
    """

    id: str
    fields: dict[str, str]
    subject: str
    is_behind: bool
    tries: int


class Relay:
    """Empties one queue's outbox."""

    def __init__(self, client: Client, root: str) -> None:
        self._client = client
        self._root = root
        self._task: asyncio.Task[None] | None = None
        self._is_kicked = False

    def kick(self) -> None:
        """There are entries."""
        self._is_kicked = True
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        """Wait for what is on its way; the rest is relayed by another worker."""
        if self._task is not None:
            await asyncio.wait({self._task})

    async def _run(self) -> None:
        retries = _RETRIES
        try:
            while entries := await self._read(retries):
                lanes: dict[str, list[_Entry]] = defaultdict(list)
                for entry in entries:
                    lanes[entry.subject or entry.id].append(entry)
                answers = await asyncio.gather(*map(self._relay_lane, lanes.values()))
                failed = [line for lane in answers for line in lane]
                aside = {id for id, _ in failed}
                done = [entry.id for entry in entries if entry.id not in aside]
                args: dict[str, object] = {"ids": done, "failed": [list(line) for line in failed]}
                await self._client.call("outbox_ack", self._root, args)
                if failed:
                    retries = 0  # the others that failed before have their next turn
                    _outbox.tell(self._root, len(failed), failed[0][1])
        except GlideMQError as error:
            # The entries stay in the outbox; the next turn of some worker tells of them again.
            logger.warning("the outbox of %s waits: %s", self._root, error)

    async def _read(self, retries: int) -> list[_Entry]:
        """The next entries; empty only if none came up meanwhile."""
        rows: list[Any] = []
        args: dict[str, object] = {"limit": _LIMIT, "retries": retries}
        while not rows and self._is_kicked:
            self._is_kicked = False
            rows = await self._client.call("outbox_read", self._root, args)
        self._is_kicked = self._is_kicked or bool(rows)
        return [
            _Entry(id.decode(), texts_of(flat), subject.decode(), bool(behind), tries)
            for id, flat, subject, behind, tries in rows
        ]

    async def _relay_lane(self, entries: Sequence[_Entry]) -> list[tuple[str, str]]:
        """Relay what is about one job, in order; answers what is to be put aside, and why."""
        failed: list[tuple[str, str]] = []
        is_free = False
        for entry in sorted(entries, key=_order):
            if failed or (entry.is_behind and not is_free):
                failed.append((entry.id, ""))
                continue
            try:
                if entry.fields:
                    await self._relay(entry.fields, is_repeat=entry.tries > 0)
            except Exception as error:  # noqa: BLE001 whatever it is, it must not hold up the others
                failed.append((entry.id, _outbox.words_of(error)))
            else:
                is_free = True
        return failed

    async def _call(
        self, name: str, queue: str, args: dict[str, object], *, is_repeat: bool = False
    ) -> None:
        if is_repeat:
            args = {**args, "repeat": True}
        await self._client.call(
            name, _keys.root_of(queue), args, give_up_after=_outbox.RELAY_GIVE_UP
        )

    async def _relay(self, entry: dict[str, str], *, is_repeat: bool) -> None:
        kind = entry["kind"]
        if kind == "child":
            await self._tell_parents(entry, is_repeat=is_repeat)
        elif kind == "late":
            first = cast("list[dict[str, str]]", loads(entry["parents"]))[0]
            usage = cast("dict[str, str]", loads(entry["usage"]))
            late: dict[str, object] = {
                "parent": first["id"],
                "late": entry["name"],
                "usage": {name: int(amount) for name, amount in usage.items()},
            }
            await self._call("child_ended", first["queue"], late)
        elif kind == "add":
            await self._add(entry["queue"], cast("dict[str, Any]", loads(entry["job"])))
        elif kind == "cancel":
            child = cast("dict[str, str]", loads(entry["child"]))
            try:
                await self._call("job_cancel", child["queue"], {"id": child["id"]})
            except JobNotFound:
                pass  # it has ended and been removed
        elif kind == "lapse":
            await self._lapse(entry)
        elif kind == "dead":
            await self._bury(entry)
        else:
            raise ServerError(f"an entry of an unknown kind {kind!r}: for a newer version?")

    async def _add(self, queue: str, job: dict[str, Any]) -> None:
        args: dict[str, object] = {"jobs": [job], "nonce": job["id"], "id": job["id"]}
        await self._call("job_add", queue, args, is_repeat=True)

    async def _tell_parents(self, entry: dict[str, str], *, is_repeat: bool) -> None:
        """Tell all parents of a child's end; raises the first error when all were tried."""
        errors: list[Exception] = []
        for i, parent in enumerate(cast("list[dict[str, str]]", loads(entry["parents"]))):
            # In a graph a node is counted on one way only, or the last one's sum would hold it twice.
            args = _end_of_child(parent, entry, counts=i == 0)
            try:
                await self._call("child_ended", parent["queue"], args, is_repeat=is_repeat)
            except GlideMQError as error:
                errors.append(error)
        if errors:
            raise errors[0]

    async def _lapse(self, entry: dict[str, str]) -> None:
        """A run was lost: settle the calls that it has booked on its job, then end what it has left open."""
        ledger = LedgerClient(self._client, entry["ledger"])
        fields, usage, *_ = await self._client.call("job_get", self._root, {"id": entry["job"]})
        options = cast("dict[str, Any]", loads(texts_of(fields).get("options") or "{}"))
        run = int(entry["run"].removeprefix(f"{entry['job']}/").partition(".")[0])
        for name, text in texts_of(usage).items():
            if not name.startswith("call:"):
                continue
            call = cast("dict[str, Any]", loads(text))
            if call["run"] == run:
                settled = await ledger.settle(
                    _keys.call_id(entry["job"], call["call"]),
                    started_ms=int(entry["started"]),
                    tokens=call["tokens"],
                    costs={name: to_nano(cost, name) for name, cost in call["costs"].items()},
                    budgets=options.get("budgets", ()),
                )
                await ledger.relay(settled.wakes)
        await ledger.relay(await ledger.lapse(entry["run"]))

    async def _bury(self, entry: dict[str, str]) -> None:
        """Add the copy of a failed job to the dead-letter queue, under an id that makes a repeat the same copy."""
        facts = {name: entry[name] for name in ("id", "name", "reason") if name in entry}
        texts = {
            name: loads(entry[name]) for name in ("data", "options", "error") if entry.get(name)
        }
        origin = self._root.partition("{")[2].rstrip("}")
        data = {"queue": origin, "attempt": int(entry.get("attempt", "1")), **facts, **texts}
        copy = {
            "id": f"{entry['id']}@{origin}",
            "name": entry["name"],
            "data": dumps(data, "data", limit=_COPY_BYTES),
        }
        await self._add(entry["queue"], copy)


def _order(entry: _Entry) -> tuple[bool, int, int]:
    ms, _, number = entry.id.partition("-")
    return entry.is_behind, int(ms), int(number)


def _end_of_child(
    parent: dict[str, str], entry: dict[str, str], *, counts: bool
) -> dict[str, object]:
    """What a parent is told of its child's end."""
    end = {name: entry[name] for name in ("state", "reason") if name in entry}
    texts = [f'"{name}":{entry[name]}' for name in ("result", "error") if entry.get(name)]
    head = ",".join(f'"{name}":"{value}"' for name, value in end.items())
    usage = cast("dict[str, str]", loads(entry["usage"])) if counts and "usage" in entry else {}
    args: dict[str, object] = {
        "parent": parent["id"],
        "key": parent["key"],
        "policy": parent["policy"],
        "state": entry["state"],
        "end": "{" + ",".join([head, *texts]) + "}",
        "usage": {name: int(amount) for name, amount in usage.items()},
    }
    if entry["state"] != "completed":
        args["error"] = _error_of_child(parent["key"], entry)
    return args


def _error_of_child(key: str, entry: dict[str, str]) -> str:
    """A child's end as the error of a parent that it fails."""
    error = cast("dict[str, Any]", loads(entry["error"])) if entry.get("error") else {}
    why = error.get("message") or entry.get("reason", "")
    error["message"] = f"child {key!r} ({entry['id']}) ended as {entry['state']}: {why}"
    return dumps(error, "error")
