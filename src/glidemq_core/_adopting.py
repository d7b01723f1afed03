"""Children that are added to a job from outside of it: `Queue.add(parent=...)`."""

from __future__ import annotations

from typing import Any, cast

from . import _keys
from ._client import Client
from ._codec import dumps, loads
from .errors import InvalidOption
from .options import Parent


async def adopt(
    client: Client, queue: str, wire: dict[str, Any], parent: Parent
) -> tuple[str, bool]:
    """Register a new job as a child and add it; answers the id of the child that stands, and whether it was there before.

    Registered and sent off in one call, so that the parent waits for nothing that never comes; then it is added right
    away, since this process may be the only one.

    Raises:
        JobNotFound, WrongState: There is no such parent, or it has ended.
        InvalidOption: The parent was added with a child of that key, or has budgets in another ledger.
    """
    key = parent.key or wire["id"]
    root = _keys.root_of(parent.queue)
    await _inherit(client, root, wire, parent)
    link = {"queue": parent.queue, "id": parent.id, "key": key, "policy": parent.on_failure}
    wire["parent"] = dumps([link], "parent")
    child = dumps({"queue": queue, "id": wire["id"], "added": "later"}, "child")
    args: dict[str, object] = {
        "parent": parent.id,
        "children": [[key, child]],
        "add": [[queue, dumps(wire, "child", limit=2 * 1_048_576)]],
    }
    standing = loads((await client.call("child_expect", root, args))[0])
    if "added" not in standing:
        raise InvalidOption("parent.key", key, "is a child that this job was added with")
    if standing["id"] != wire["id"]:
        return standing["id"], True
    again: dict[str, object] = {
        "jobs": [wire],
        "nonce": wire["id"],
        "id": wire["id"],
        "repeat": True,
    }
    await client.call("job_add", _keys.root_of(queue), again)
    return wire["id"], False


async def _inherit(client: Client, root: str, wire: dict[str, Any], parent: Parent) -> None:
    """A child spends from the budgets of its parent, too."""
    flat = (await client.call("job_get", root, {"id": parent.id}))[0]
    fields = {flat[i]: flat[i + 1] for i in range(0, len(flat), 2)}
    theirs = cast("dict[str, Any]", loads(fields[b"options"])) if b"options" in fields else {}
    if not theirs.get("budgets"):
        return
    own = cast("dict[str, Any]", loads(wire["options"])) if "options" in wire else {}
    ledger = theirs.get("ledger", "main")
    if own.get("ledger", ledger) != ledger:
        raise InvalidOption("ledger", own["ledger"], f"its parent's budgets are in {ledger!r}")
    own["budgets"] = list(dict.fromkeys([*own.get("budgets", ()), *theirs["budgets"]]))
    own["ledger"] = wire["ledger"] = ledger
    wire["options"] = dumps(own, "options", limit=65_536)
