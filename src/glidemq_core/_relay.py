"""Carries the outbox of a queue to other slots: children to be added, children that have ended, cancellations.

Any worker of the queue may do it, and an entry may be relayed twice: the receiving functions are idempotent.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Final, cast

from . import _keys
from ._client import Client
from ._codec import dumps, loads, texts_of
from ._ledger import LedgerClient
from ._units import to_nano
from .errors import GlideMQError, JobNotFound

logger = logging.getLogger(__name__)

_LIMIT: Final = 100
_COPY_BYTES: Final = 4 * 1_048_576


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
        try:
            while entries := await self._read():
                for _, flat in entries:
                    await self._relay(texts_of(flat))
                ids = [entry_id.decode() for entry_id, _ in entries]
                await self._client.call("outbox_ack", self._root, {"ids": ids})
        except GlideMQError as error:
            # The entries stay in the outbox; the next turn of some worker tells of them again.
            logger.warning("the outbox of %s waits: %s", self._root, error)

    async def _read(self) -> list[Any]:
        """The next entries; empty only if none came up meanwhile."""
        entries: list[Any] = []
        while not entries and self._is_kicked:
            self._is_kicked = False
            entries = await self._client.call("outbox_read", self._root, {"limit": _LIMIT})
        self._is_kicked = self._is_kicked or bool(entries)
        return entries

    async def _relay(self, entry: dict[str, str]) -> None:
        kind = entry["kind"]
        if kind == "child":
            parents = cast("list[dict[str, str]]", loads(entry["parents"]))
            for i, parent in enumerate(parents):
                # In a graph a node is counted on one way only, or the last one's sum would hold it twice.
                await self._child_ended(parent, entry, counts=i == 0)
        elif kind == "late":
            first = cast("list[dict[str, str]]", loads(entry["parents"]))[0]
            usage = cast("dict[str, str]", loads(entry["usage"]))
            late: dict[str, object] = {
                "parent": first["id"],
                "late": entry["name"],
                "usage": {name: int(amount) for name, amount in usage.items()},
            }
            await self._client.call("child_ended", _keys.root_of(first["queue"]), late)
        elif kind == "add":
            job = cast("dict[str, Any]", loads(entry["job"]))
            args: dict[str, object] = {
                "jobs": [job],
                "nonce": job["id"],
                "id": job["id"],
                "repeat": True,
            }
            await self._client.call("job_add", _keys.root_of(entry["queue"]), args)
        elif kind == "cancel":
            child = cast("dict[str, str]", loads(entry["child"]))
            try:
                await self._client.call(
                    "job_cancel", _keys.root_of(child["queue"]), {"id": child["id"]}
                )
            except JobNotFound:
                pass  # it has ended and been removed
        elif kind == "lapse":
            await self._lapse(entry)
        elif kind == "dead":
            await self._bury(entry)
        else:
            logger.error("the outbox of %s holds an entry of an unknown kind %r", self._root, kind)

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
                    call["call"],
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
        args: dict[str, object] = {
            "jobs": [copy],
            "nonce": copy["id"],
            "id": copy["id"],
            "repeat": True,
        }
        await self._client.call("job_add", _keys.root_of(entry["queue"]), args)

    async def _child_ended(
        self, parent: dict[str, str], entry: dict[str, str], *, counts: bool
    ) -> None:
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
        await self._client.call("child_ended", _keys.root_of(parent["queue"]), args)


def _error_of_child(key: str, entry: dict[str, str]) -> str:
    """A child's end as the error of a parent that it fails."""
    error = cast("dict[str, Any]", loads(entry["error"])) if entry.get("error") else {}
    why = error.get("message") or entry.get("reason", "")
    error["message"] = f"child {key!r} ({entry['id']}) ended as {entry['state']}: {why}"
    return dumps(error, "error")
