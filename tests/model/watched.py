"""A queue that is looked at after every call: what may have changed, and what must be so."""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from glidemq_core import _keys
from tests.harness.fsck import fsck
from tests.harness.servers import ValkeyServer
from tests.lua.engine import Claim, Engine, TurnReply

ENDED = frozenset({"completed", "failed", "cancelled"})
LEASE = 2000
KEPT = 20  # ended jobs of a state


@dataclass(frozen=True, slots=True)
class Seen:
    """What the model looks at of a job."""

    state: str
    token: str
    where: tuple[str, ...]
    score: float
    cancel: bool
    expires_at: float
    started: bool


@dataclass(slots=True)
class SentTurn:
    """A turn that was applied, to be repeated."""

    args: dict[str, Any]
    reply: TurnReply


@dataclass(slots=True)
class Worker:
    """What a worker knows."""

    name: str
    number: int = 0
    held: dict[str, Claim] = field(default_factory=dict)
    past: deque[Claim] = field(default_factory=lambda: deque(maxlen=10))
    unanswered: list[SentTurn] = field(default_factory=list)
    answered: deque[SentTurn] = field(default_factory=lambda: deque(maxlen=4))
    chunks: Counter[str] = field(default_factory=Counter)
    updates: Counter[str] = field(default_factory=Counter)


class WatchedQueue:
    """A queue, two workers, and what has happened."""

    def __init__(self, server: ValkeyServer, name: str, seed: int) -> None:
        self.random = random.Random(seed)
        self.server = server
        self.connection = server.connect()
        self.name = name
        self.engine = Engine(server, name)
        self.engine.load()
        self.workers = [Worker("w1"), Worker("w2")]
        self.jobs: dict[str, Seen] = {}
        self.ids: list[str] = []
        self.ends: Counter[str] = Counter()
        self.told: Counter[str] = Counter()
        self.calls: dict[str, dict[str, Any]] = {}
        self.position = ""
        self.log: deque[str] = deque(maxlen=25)
        self.removed: set[str] = set()

    # -- looking --------------------------------------------------------------------------------------------------

    def look(self) -> dict[str, Seen]:
        """The jobs as they are, each in exactly one index: the one of its state."""
        where: dict[str, list[tuple[str, float]]] = {}
        root = self.engine.root
        replies = self._ask(
            [("ZRANGE", f"{root}:{index}", 0, -1, "WITHSCORES") for index in _keys.INDEXES]
        )
        for index, flat in zip(_keys.INDEXES, replies, strict=True):
            for id, score in zip(flat[::2], flat[1::2], strict=True):
                where.setdefault(id.decode(), []).append((index, float(score)))
        ids = sorted({*self.jobs, *where})
        rows = self._ask([("HMGET", _keys.job(root, id), *_FIELDS) for id in ids])
        found = {id: _seen(id, row, where.get(id, [])) for id, row in zip(ids, rows, strict=True)}
        return {id: seen for id, seen in found.items() if seen is not None}

    def _ask(self, commands: list[tuple[Any, ...]]) -> list[Any]:
        """Send commands at once: looking at everything after every call must be cheap."""
        for command in commands:
            self.connection.send(*command)
        return [self.connection.receive() for _ in commands]

    def settle(self, allowed: Callable[[str, Seen | None, Seen | None], bool], *, now: int) -> None:
        """Compare with what a call may have changed, and go on from there."""
        after = self.look()
        for id in self.jobs.keys() | after.keys():
            old, new = self.jobs.get(id), after.get(id)
            if (old and (old.state, old.token)) != (new and (new.state, new.token)):
                assert allowed(id, old, new), f"{id}: {old} became {new} at {now}"
            if new and new.state in ENDED and not (old and old.state in ENDED):
                self.ends[id] += 1
            if (
                new is None
                and old is not None
                and old.state not in ENDED
                and id not in self.removed
            ):
                self.ends[id] += 1  # it ended and was removed at once
        gone = {self.jobs[id].state for id in self.jobs.keys() - after.keys() - self.removed}
        left = Counter(seen.state for seen in after.values())
        assert all(left[state] >= KEPT for state in gone & ENDED), "only what is too many goes"
        self.jobs = after

    def unchanged(self, what: str) -> None:
        """Nothing may have changed."""
        after = self.look()
        assert {id: (seen.state, seen.token) for id, seen in after.items()} == {
            id: (seen.state, seen.token) for id, seen in self.jobs.items()
        }, what
        self.jobs = after

    def read_events(self) -> None:
        """Count the endings that were told."""
        while True:
            _, _, entries = self.engine.call("event_read", after=self.position, limit=1000)
            for entry_id, fields in entries:
                self.position = entry_id.decode()
                for event, id in zip(fields[::2], fields[1::2], strict=True):
                    if event.decode() in ENDED:
                        self.told[id.decode()] += 1
            if not entries:
                return

    def check(self) -> None:
        """What holds after any step; too dear to be looked at after each."""
        problems = fsck(self.server, self.name, now=self.engine.now())
        # A ttl that passed before the clock jumped back is looked at again when the job is to be claimed.
        assert [problem for problem in problems if "nobody watches" not in problem] == []
        self.read_events()
        assert self.told == +self.ends, "one event per ending"


_FIELDS = ("state", "token", "removed", "cancel_requested", "expires_at", "started_at")


def _seen(id: str, row: list[bytes | None], where: list[tuple[str, float]]) -> Seen | None:
    state, token, removed, cancel, expires_at, started = (
        part.decode() if part else "" for part in row
    )
    if not state or removed:
        assert not where, f"{id} is gone but in {where}"
        return None
    indexes = tuple(index for index, _ in where)
    expected = ("waiting", "suspects") if state == "waiting" else (state,)
    assert len(indexes) == 1, f"{id} is {state}, in {indexes}"
    assert indexes[0] in expected, f"{id} is {state}, in {indexes}"
    return Seen(
        state,
        token,
        indexes,
        where[0][1],
        bool(cancel),
        float(expires_at or "inf"),
        bool(started),
    )
