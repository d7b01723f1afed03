"""Children that a running job adds, and waits for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from . import _keys, options
from ._codec import dumps, loads
from ._journal import Journal
from ._waiting import steps_here
from .errors import InvalidOption
from .flow import ChildEnd, OnChildFailure, ends_of
from .options import NewJob

if TYPE_CHECKING:
    from ._host import Host
    from ._run import Run


class Children:
    """The children of one run's job."""

    def __init__(self, run: Run, host: Host) -> None:
        self._run = run
        self._host = host

    async def add(
        self,
        name: str,
        data: object,
        *,
        queue: str | None,
        key: str | None,
        on_failure: OnChildFailure,
        options: Mapping[str, Any],
    ) -> str:
        """See RunningJob.add_child."""
        if on_failure not in ("fail", "ignore", "collect"):
            raise InvalidOption("on_failure", on_failure, "not fail, ignore or collect")
        place = _keys.check_name(queue or self._host.queue, "queue")
        label = self._label(name, key)
        wire = _wire(name, data, self._inherited(options))
        link = {"queue": self._host.queue, "id": self._run.id, "key": label, "policy": on_failure}
        wire["parent"] = dumps([link], "parent")
        args: dict[str, object] = {
            "parent": self._run.id,
            "token": self._run.token,
            "children": [
                [label, dumps({"queue": place, "id": wire["id"], "added": "running"}, "child")]
            ],
            "add": [[place, dumps(wire, "child", limit=2 * 1_048_576)]],
        }
        standing = await self._host.client.call("child_expect", self._host.root, args)
        self._host.relay.kick()  # the worker may take no turn for long, and the child wait for it
        found = loads(standing[0])
        if "added" not in found:
            raise InvalidOption(
                "key", label, "is a child that this job was added with; give it another key"
            )
        return found["id"]

    def _inherited(self, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """A child spends from the budgets of its parent, too."""
        own = self._run.options
        if not own.get("budgets"):
            return given
        ledger = own.get("ledger", "main")
        if given.get("ledger", ledger) != ledger:
            raise InvalidOption(
                "ledger", given["ledger"], f"its parent's budgets are in {ledger!r}"
            )
        merged = dict.fromkeys([*given.get("budgets", ()), *own["budgets"]])
        return {**given, "budgets": list(merged), "ledger": ledger}

    async def ended(self) -> tuple[int, dict[str, ChildEnd]]:
        """How many children have not ended, and how the others have, by key."""
        pending, flat = await self._host.client.call(
            "job_children", self._host.root, {"id": self._run.id}
        )
        return pending, ends_of(flat)

    def _label(self, name: str, key: str | None) -> str:
        """The child's key: the same for the same call of a handler that starts again."""
        if key is None and steps_here():
            # A finished step is not entered again, and the children after it would be counted anew.
            raise InvalidOption(
                "key", key, "must be given for a child that is added inside of a step"
            )
        if self._run.journal is None:
            self._run.journal = Journal([])
        stem = _keys.check_name(key or name, "key")
        ordinal = self._run.journal.next_key("child", stem).rpartition("#")[2]
        return stem if ordinal == "1" else f"{stem}#{ordinal}"


def _wire(name: str, data: object, given: Mapping[str, Any]) -> dict[str, Any]:
    unknown = set(given) - (set(NewJob.__dataclass_fields__) - {"name", "data", "budget", "parent"})
    if unknown:
        raise InvalidOption("options", sorted(unknown), "unknown options")
    return options.to_wire(NewJob(name=name, data=data, **given))
