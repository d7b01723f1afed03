"""A ledger seen through its functions alone, with the clock and the breaks of the test build."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from tests.lua.engine import Engine

MINUTE = 60_000
DAY = 86_400_000
TTL = 30_000
QUEUE = "glidemq:{ai}"
_unpack = msgspec.msgpack.Decoder().decode


class LedgerEngine(Engine):
    """One ledger of one server."""

    def open(self, id: str = "b", *, total: int | None = None, **more: object) -> str:
        """Make a budget; `total` is its cap on total tokens, in whole tokens."""
        caps: dict[str, int] = {} if total is None else {"total_tokens": total * 1000}
        args = {
            "id": id,
            "caps": caps,
            "weights": {},
            "on": "fail",
            "unit": "usd",
            "window": "none",
            "zone": "UTC",
            "start": 0,
            "stop": 0,
            "update": False,
            **more,
        }
        return self.packed("ledger_open", **args)[0]

    def reserve(self, call: str = "j/1/1", input: int = 0, **more: object) -> list[Any]:
        """Reserve for a call, of one budget "b" unless `budgets` says otherwise; answers the verdict."""
        args = {
            "call": call,
            "budgets": ["b"],
            "tokens": {"input": input},
            "costs": {},
            "ttl_ms": TTL,
            "sent": True,
            **more,
        }
        args["limiters"] = [
            [conf["name"], json.dumps(conf)] if isinstance(conf, dict) else conf
            for conf in args.get("limiters", [])
        ]
        verdict = self.packed("ledger_reserve", **args)
        return verdict[:1] if verdict[0] == "ok" else verdict

    def limited(
        self, call: str, input: int, *limiters: dict[str, object], **more: object
    ) -> list[Any]:
        """Reserve for a call that names limiters alone."""
        return self.reserve(call, input, budgets=[], limiters=list(limiters), **more)

    def settle(self, call: str = "j/1/1", input: int = 0, **more: object) -> str:
        """Settle a call; answers the verdict."""
        return self.settled(call, input, **more)[0]

    def settled(self, call: str = "j/1/1", input: int = 0, **more: object) -> list[Any]:
        """Settle a call; answers the whole reply."""
        args = {
            "call": call,
            "tokens": {"input": input},
            "costs": {},
            "started_ms": self.now(),
            **more,
        }
        return self.packed("ledger_settle", **args)

    def spend(self, id: str = "b") -> dict[str, dict[str, int]]:
        """A budget's sums: used, held, loose; only what is not 0."""
        found = self.packed("ledger_get", budgets=[id])[1][0]
        return {
            key: {name: number for name, number in (found[1][key] or {}).items() if number}
            for key in ("used", "held", "loose")
        }

    def used(self, id: str = "b") -> int:
        """Total tokens used, settled and unverified."""
        return self.spend(id)["used"].get("total_tokens", 0) // 1000

    def held(self, id: str = "b") -> int:
        """Total tokens held by open reservations."""
        return self.spend(id)["held"].get("total_tokens", 0) // 1000

    def limiter(self, name: str = "m") -> Any:
        """A limiter's record and how many hold a place; None if there is none."""
        return self.packed("ledger_get", limiters=[name])[2][0] or None

    def history(self, id: str = "b") -> list[dict[str, Any]]:
        """A budget's entries with their sums as [gained, became], the oldest first; "": the alerts."""
        rows = self.call("ledger_history", id=id, before="", limit=1000)
        found: list[dict[str, Any]] = []
        for _, flat in reversed(rows):
            fields = dict(zip((key.decode() for key in flat[::2]), flat[1::2], strict=True))
            if id == "":
                found.append({key: value.decode() for key, value in fields.items()})
                continue
            kind, call, window, note, *sums = _unpack(fields["line"])
            rest = iter(sums)
            found.append(
                {"kind": kind, "call": call, "window": window, "note": note}
                | {name: [gained, became] for name, gained, became in zip(*[rest] * 3, strict=True)}
            )
        return found

    def kinds(self, id: str = "b") -> list[str]:
        """The kinds of a budget's entries, the oldest first."""
        return [entry["kind"] for entry in self.history(id)]

    def upkeep(self, **more: object) -> list[Any]:
        """A round of upkeep."""
        return self.packed("ledger_upkeep", **more)

    def _value(self, key: str) -> Any:
        name = f"{self.root}:{key}"
        if self.server.cmd("TYPE", name) == b"string":
            return _unpack(self.server.cmd("GET", name))
        return super()._value(key)

    def audited(self, id: str = "b") -> list[Any]:
        """The only page of an audit."""
        return self.packed("ledger_audit", id=id, after="")


def throttle(name: str = "m", **more: object) -> dict[str, object]:
    """A limiter without limits but those given: rpm=, tpm= (limit, burst), concurrency=, breaker=, adaptive=."""
    axes: list[dict[str, object]] = []
    for axis in ("rpm", "tpm", "input_tpm", "output_tpm"):
        if axis in more:
            limit, burst = more.pop(axis)  # type: ignore[misc]
            axes.append({"axis": axis, "limit": limit, "period_ms": MINUTE, "burst": burst})
            if axis == "rpm":
                axes[-1]["count"] = True
            if "_" in axis:
                axes[-1]["side"] = axis.partition("_")[0]
    return {"name": name, "axes": axes, "adaptive": True, **more}


def waiter(job: str, **more: object) -> dict[str, object]:
    """A job of the queue "ai" that waits."""
    return {"queue": QUEUE, "job": job, **more}
