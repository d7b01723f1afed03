"""A queue seen through its functions alone: one call at a time, with the clock and the breaks of the test build."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec
import pytest

from glidemq_core import _keys, _library
from tests.harness.servers import ReplyError

LIBRARY = _library.bundle("test")
LEASE = 1000
_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder().decode


class Server(Protocol):
    """What the engine needs of a server."""

    def cmd(self, *words: str | bytes | float) -> Any: ...


class Refused(Exception):
    """A function answered with an error reply of its own: `code` and `words`."""

    def __init__(self, code: str, words: str) -> None:
        self.code = code
        self.words = words
        super().__init__(f"{code} {words}")


@contextlib.contextmanager
def refused(words: str) -> Iterator[None]:
    """Expect an error reply that begins with these words, the code first."""
    with pytest.raises(Refused) as caught:
        yield
    assert str(caught.value).startswith(words)


class Broken(Exception):
    """The call was broken off at a failpoint."""


class Crashed(Exception):
    """The call ended in an error of the interpreter: never acceptable."""


@dataclass(frozen=True, slots=True)
class Claim:
    """One claim of a turn's reply."""

    id: str
    run: int
    attempt: int
    name: str
    created_at: int
    stalled: int
    lease_ms: int
    is_suspect: bool
    options: str
    commit: str
    place: float
    token: str
    data: bytes
    has_journal: bool = False
    journal: dict[str, str] | None = None


_WIRE_FIELDS = 11


@dataclass(frozen=True, slots=True)
class TurnReply:
    """A turn's reply."""

    codes: str
    token: str
    claims: list[Claim]
    next_ms: int
    more: int

    @property
    def ids(self) -> list[str]:
        return [claim.id for claim in self.claims]


class Engine:
    """One queue of one server.

    Its time stands still, so that no test depends on how fast it runs; `advance` moves it.
    """

    def __init__(self, server: Server, queue: str) -> None:
        self.server = server
        self.root = _keys.root_of(queue)
        self.is_cluster: bool = getattr(server, "is_cluster", False)
        seconds, micros = server.cmd("TIME")
        self.clock = int(seconds) * 1000 + int(micros) // 1000
        self._turns: dict[str, int] = {}

    def load(self) -> None:
        """Have the test build on the server."""
        try:
            found = self.server.cmd("FCALL_RO", f"{LIBRARY.prefix}source", 0)
        except ReplyError as error:
            if "Function not found" not in str(error):
                raise
            found = [0, 0, b"", b""]
        if found[2].decode() != LIBRARY.hash:
            self.server.cmd("FUNCTION", "LOAD", "REPLACE", LIBRARY.text)

    def call(self, function: str, /, **args: object) -> Any:
        """Call a function; `fail_after=n` breaks it off at its write number n + 1."""
        return self.raw(function, _pack({"clock_ms": self.clock, **args}))

    def raw(self, function: str, *args: bytes) -> Any:
        """Call a function with arguments as they are."""
        try:
            return self.server.cmd("FCALL", LIBRARY.prefix + function, 1, self.root, *args)
        except ReplyError as error:
            raise _translated(error) from None

    def packed(self, function: str, /, **args: object) -> Any:
        """Call a function that answers a packed reply."""
        return _unpack(self.call(function, **args))

    def advance(self, ms: int) -> None:
        """Let time go by."""
        self.clock += ms

    def now(self) -> int:
        """The queue's time in ms."""
        return self.clock

    # -- adding and working ---------------------------------------------------------------------------------------

    def add(self, *ids: str, nonce: str = "n", **options: object) -> str:
        """Add jobs of these ids, all with these options."""
        jobs = [{"id": id, "name": "job", **options} for id in ids]
        return self.call("job_add", jobs=jobs, nonce=nonce).decode()

    def turn(
        self,
        worker: str = "w1",
        *,
        number: int | None = None,
        want: int = 0,
        done: Sequence[object] = (),
        **more: object,
    ) -> TurnReply:
        """A worker's turn; its number counts up by itself."""
        if number is None:
            number = self._turns.get(worker, 0) + 1
            self._turns[worker] = number
        reply = self.call("turn", **turn_args(worker, number, want=want, done=done, **more))
        return read_turn(reply)

    def claim(self, worker: str = "w1", **more: object) -> Claim:
        """Claim one job that must be there."""
        (claim,) = self.turn(worker, want=1, **more).claims
        return claim

    def start(self, claim: Claim, worker: str = "w1") -> None:
        """Report a claimed job as started."""
        started = [[claim.id, claim.token, 0]]
        self.call("job_beat", worker=worker, leases=[[claim.id, claim.token]], started=started)

    def finish(
        self, claim: Claim, kind: str = "completed", *more: object, worker: str = "w1"
    ) -> str:
        """Hand in one outcome; answers its code."""
        return self.turn(worker, done=[outcome(claim, kind, *more)]).codes

    def active(self, id: str = "a", worker: str = "w1", **options: object) -> Claim:
        """Add a job and claim it."""
        self.add(id, **options)
        return self.claim(worker)

    def ended(self, id: str = "a", kind: str = "failed", **options: object) -> None:
        """Add a job and bring it to its end."""
        extra = {"reason": "error", "error": error_text()} if kind == "failed" else None
        assert self.finish(self.active(id, **options), kind, None, extra) == "o"

    # -- looking --------------------------------------------------------------------------------------------------

    def names(self) -> set[str]:
        """The queue's keys, without the root."""
        found = self.server.cmd("KEYS", f"{self.root}*")
        return {key.decode().removeprefix(f"{self.root}:") for key in found}

    def job(self, id: str) -> dict[str, str]:
        """A job's hash."""
        flat = [part.decode() for part in self.server.cmd("HGETALL", _keys.job(self.root, id))]
        return dict(zip(flat[::2], flat[1::2], strict=True))

    def index(self, name: str) -> list[str]:
        """Ids in one index, in order."""
        return [id.decode() for id in self.server.cmd("ZRANGE", f"{self.root}:{name}", 0, -1)]

    def score(self, name: str, id: str) -> float:
        """A job's score in an index."""
        return float(self.server.cmd("ZSCORE", f"{self.root}:{name}", id))

    def where(self, id: str) -> list[str]:
        """The indexes that hold a job."""
        return [
            name
            for name in _keys.INDEXES
            if self.server.cmd("ZSCORE", f"{self.root}:{name}", id) is not None
        ]

    def ttl(self, key: str) -> int:
        """Milliseconds that a key (without the root) has left: -1 for ever, -2 gone."""
        return self.server.cmd("PTTL", f"{self.root}:{key}")

    def events(self) -> list[tuple[str, str]]:
        """All events: (what, job id); ("+", JSON) tells more of the one before."""
        entries = self.call("event_read", after="", limit=1000)[2]
        flat = [part.decode() for _, fields in entries for part in fields]
        return list(zip(flat[::2], flat[1::2], strict=True))

    def chunks(self, id: str) -> list[dict[str, str]]:
        """The entries of a job's stream."""
        entries = self.server.cmd("XRANGE", _keys.satellite(self.root, id, "chunks"), "-", "+")
        return [_pairs(fields) for _, fields in entries]

    def dump(self) -> dict[str, Any]:
        """Every key with its whole value: for comparing before and after."""
        return {key: self._value(key) for key in sorted(self.names())}

    def _value(self, key: str) -> Any:
        name = f"{self.root}:{key}"
        kind = self.server.cmd("TYPE", name)
        match kind.decode() if isinstance(kind, bytes) else kind:
            case "hash":
                flat = self.server.cmd("HGETALL", name)
                return dict(sorted(zip(flat[::2], flat[1::2], strict=True)))
            case "zset":
                return self.server.cmd("ZRANGE", name, 0, -1, "WITHSCORES")
            case "list":
                return self.server.cmd("LRANGE", name, 0, -1)
            case "set":
                return sorted(self.server.cmd("SMEMBERS", name))
            case "stream":
                return self.server.cmd("XRANGE", name, "-", "+")
            case "string":
                return self.server.cmd("GET", name)
            case other:
                raise AssertionError(f"{key} is a {other}")


def turn_args(worker: str, number: int, **more: object) -> dict[str, object]:
    """The arguments of a turn."""
    return {
        "worker": worker,
        "turn": number,
        "nonce": f"n{number}",
        "want": 0,
        "lease_ms": LEASE,
        "suspects": 0,
        "max_stalled": 3,
        **more,
    }


def read_turn(reply: list[Any]) -> TurnReply:
    """A turn's reply, unpacked."""
    codes, token, claims, next_ms, more, *_ = _unpack(reply[0])
    data, journals = reply[1 : len(claims) + 1], iter(reply[len(claims) + 1 :])
    found = [
        Claim(
            *line[:_WIRE_FIELDS],
            token=token,
            data=data,
            has_journal=bool(line[_WIRE_FIELDS]),
            journal=_pairs(next(journals)) if line[_WIRE_FIELDS] == 1 else None,
        )
        for line, data in zip(claims, data, strict=True)
    ]
    assert not list(journals)
    return TurnReply(codes, token, found, next_ms, more)


def outcome(claim: Claim, kind: str = "completed", *more: object) -> list[object]:
    """A line of a turn: the outcome of a claim; `more` is its text and its extra map."""
    return [claim.id, claim.token, kind, 5, *more]


def error_text(attempt: int = 1, message: str = "no") -> str:
    """An error as a worker hands it in."""
    return json.dumps(
        {"class": "ValueError", "message": message, "traceback": "", "attempt": attempt}
    )


def report(call: str = "a/1/1", **more: object) -> dict[str, object]:
    """The arguments of job_usage but for the id."""
    tokens, costs = {"input": 3, "output": 4}, {"total": 1_000_000}
    entry = json.dumps({"call": call, "tokens": tokens, "costs": {"total": "0.001"}})
    return {"call": call, "model": "m", "tokens": tokens, "costs": costs, "entry": entry, **more}


def _pairs(flat: list[bytes]) -> dict[str, str]:
    texts = [part.decode() for part in flat]
    return dict(zip(texts[::2], texts[1::2], strict=True))


def _translated(error: Exception) -> Exception:
    text = str(error)
    if "FAILPOINT" in text:
        return Broken(text)
    found = re.fullmatch(r"([A-Z]+) (.*?)( script: .*)?", text, re.DOTALL)
    if found and found.group(1) not in ("ERR", "WRONGTYPE"):
        return Refused(found.group(1), found.group(2))
    return Crashed(LIBRARY.locate(text))
