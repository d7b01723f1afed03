"""Does a queue's data hold together? For tests and for people; the queue itself never scans."""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final, Literal, cast

from . import _keys
from ._client import Client
from ._codec import loads
from ._queue_dump import Entry, JobDump, QueueDump, Read, dump_queue
from ._units import NANO
from .job import STATES, TERMINAL

_YEARS_MS: Final = 36_500 * 86_400_000
_SLACK_MS: Final = 60_000
_DEFAULT_LEASE_MS: Final = 30_000
_STUCK_MS: Final = 600_000
_MAX_MAIL: Final = 100
_MAX_LIST: Final = {"errors": 20, "log": 1000}
_NUMBER: Final = re.compile(r"-?[0-9]+(\.[0-9]+)?")

Ttl = Literal["never", "always", "any"]


@dataclass(frozen=True, slots=True)
class _KeyRule:
    """A line of the key table: names below the root, the type, and whether such a key may or must expire."""

    pattern: str
    type: str
    ttl: Ttl

    def fits(self, name: str) -> bool:
        return re.fullmatch(self.pattern, name) is not None


_ID: Final = r"[^:{}\s]+"
# A job's hash expires only as a tombstone, its stream only without its job: see _check_job.
KEY_TABLE: Final = (
    _KeyRule("|".join(_keys.INDEXES), "zset", "never"),
    _KeyRule("meta", "hash", "never"),
    _KeyRule("wake", "list", "never"),
    _KeyRule("workers|expiring|outbox_due", "zset", "never"),
    _KeyRule("outbox_stuck", "hash", "never"),
    _KeyRule("events|outbox", "stream", "never"),
    _KeyRule("models", "set", "always"),
    _KeyRule(f"job:{_ID}", "hash", "any"),
    _KeyRule(f"job:{_ID}:chunks", "stream", "any"),
    _KeyRule(f"job:{_ID}:(log|errors)", "list", "never"),
    _KeyRule(f"job:{_ID}:(usage|steps|mailbox|children)", "hash", "never"),
    _KeyRule(f"inbox:{_ID}", "list", "always"),
    _KeyRule(f"turn:{_ID}", "hash", "always"),
    _KeyRule(r"removed:\d+", "set", "always"),
    _KeyRule(r"(minute|hour):\d+", "hash", "always"),
    _KeyRule(r"generation:[\s\S]+", "string", "always"),
)


async def fsck(client: Client, queue: str) -> list[str]:
    """Look through everything that a queue holds on the server.

    Reads with SCAN and is not atomic: a queue that is being worked on may show passing problems.

    Returns:
        A line per problem found; none means that all is well.
    """
    return await fsck_through(_reader(client, queue), queue)


async def fsck_through(read: Read, queue: str, *, now: int | None = None) -> list[str]:
    """As `fsck`, through any way to send commands. `now`: the instant to compare with, epoch milliseconds."""
    return check(await dump_queue(read, queue, now=now))


def check(dump: QueueDump) -> list[str]:
    """The problems of what was read, one line each, sorted."""
    problems = [
        *_check_keys(dump),
        *_check_indexes(dump),
        *_check_queue(dump),
        *_check_outbox(dump),
    ]
    for id, job in dump.jobs.items():
        problems += (f"job {id}: {problem}" for problem in _check_job(dump, id, job))
    return sorted(problems)


def _reader(client: Client, queue: str) -> Read:
    root = _keys.root_of(queue)

    async def read(*words: str) -> Any:
        return await client.command(*words, near=root)

    return read


def _check_keys(dump: QueueDump) -> Iterator[str]:
    for name, facts in dump.keys.items():
        rule = next((rule for rule in KEY_TABLE if rule.fits(name)), None)
        if rule is None:
            yield f"key {name}: not in the key table"
        elif facts.type != rule.type:
            yield f"key {name}: a {facts.type}, not a {rule.type}"
        elif rule.ttl == "always" and facts.ttl is None:
            yield f"key {name}: never expires"
        elif rule.ttl == "never" and facts.ttl is not None:
            yield f"key {name}: expires"


def _check_indexes(dump: QueueDump) -> Iterator[str]:
    for index in _keys.INDEXES:
        for id in dump.indexes[index]:
            job = dump.jobs.get(id)
            if job is None or not job.fields:
                yield f"index {index}: holds {id}, which has no hash"
            elif "removed" in job.fields:
                yield f"index {index}: holds {id}, which is removed"


def _check_queue(dump: QueueDump) -> Iterator[str]:
    if dump.wake > 1:
        yield f"wake: {dump.wake} tokens"
    sequence = int(dump.meta.get("sequence", 0))
    if sequence < sum(1 for job in dump.jobs.values() if "place" in job.fields):
        yield f"meta: sequence {sequence} is below the number of jobs"


def _check_outbox(dump: QueueDump) -> Iterator[str]:
    due = dump.indexes["outbox_due"]
    for id in sorted(due.keys() ^ {name for name in dump.stuck if not name.startswith("of ")}):
        yield f"outbox: entry {id} is put aside by half"
    for id in due:
        minutes = (dump.now - int(id.partition("-")[0])) // 60_000
        if minutes * 60_000 >= _STUCK_MS:
            yield f"outbox: entry {id} could not be relayed for {minutes} minutes; `glidemq outbox` says why"


def _check_job(dump: QueueDump, id: str, job: JobDump) -> Iterator[str]:
    if "removed" in job.fields:
        yield from _check_tombstone(dump, id, job)
    elif job.fields:
        yield from _check_state(dump, id, job)
        yield from _check_satellites(dump, id, job)
        yield from _check_usage(job.hashes.get("usage", {}))
        yield from _check_mailbox(job.hashes.get("mailbox", {}))
        yield from _check_family(job)
        yield from _check_park(job)
    else:
        yield from _check_left_over(dump, id, job)
    if job.chunks:
        yield from _check_stream(job)


def _check_tombstone(dump: QueueDump, id: str, job: JobDump) -> Iterator[str]:
    if dump.keys[f"job:{id}"].ttl is None:
        yield "a tombstone that never expires"
    if job.fields.get("state") not in TERMINAL:
        yield f"a tombstone in state {job.fields.get('state')!r}"
    yield from _check_left_over(dump, id, job)


def _check_left_over(dump: QueueDump, id: str, job: JobDump) -> Iterator[str]:
    """What a removed job may leave: its stream, for the grace time."""
    for name in sorted(job.satellites):
        if name != "chunks":
            yield f"{name} is left although the job is removed"
        elif dump.keys[f"job:{id}:chunks"].ttl is None:
            yield "chunks of a removed job that never expire"


def _check_state(dump: QueueDump, id: str, job: JobDump) -> Iterator[str]:
    fields = job.fields
    state = fields.get("state", "")
    if dump.keys[f"job:{id}"].ttl is not None:
        yield "expires although it is not removed"
    if state not in STATES:
        yield f"state {state!r}"
        return
    found = [index for index in _keys.INDEXES if id in dump.indexes[index]]
    expected = _index_of(fields)
    if found != [expected]:
        yield f"is {state}, in indexes {found} in place of {expected}"
    else:
        yield from _CHECKS.get(state, _check_wait)(dump, fields, dump.indexes[expected][id])
    if (state in TERMINAL) != ("finished_at" in fields):
        yield f"is {state} {'without' if state in TERMINAL else 'with'} finished_at"
    for name in ("run", "attempt", "stalled", "lost", "created_at"):
        if not _NUMBER.fullmatch(fields.get(name, "0")) or float(fields.get(name, "0")) < 0:
            yield f"{name} is {fields[name]!r}"
    is_unstarted = state in ("waiting", "delayed") and "started_at" not in fields
    # One that ran out while a worker had it fails at its next claim, watched or not.
    has_ttl = is_unstarted and float(fields.get("expires_at", 0)) > dump.now
    if has_ttl and id not in dump.indexes["expiring"]:
        yield "has a ttl that nobody watches"


def _index_of(fields: Mapping[str, str]) -> str:
    """The index of a job by its fields; twin of `job.index_of` in lua/lib/job.lua."""
    state = fields["state"]
    is_suspect = int(fields.get("stalled", 0)) >= 1 or int(fields.get("lost", 0)) >= 2
    return "suspects" if state == "waiting" and is_suspect else state


def _check_waiting(_dump: QueueDump, fields: Mapping[str, str], score: float) -> Iterator[str]:
    if score != float(fields.get("place", "nan")):
        yield f"waits at {score:.0f}, its place is {fields.get('place')}"


def _check_active(dump: QueueDump, fields: Mapping[str, str], score: float) -> Iterator[str]:
    lease = int(fields.get("lease_ms", _DEFAULT_LEASE_MS))
    if not 0 < score <= dump.now + lease + _SLACK_MS:
        yield f"a lease until {score:.0f}, of {lease} ms at {dump.now}"
    for name in ("token", "owner", "run"):
        if not fields.get(name):
            yield f"is active without {name}"


def _check_wait(dump: QueueDump, fields: Mapping[str, str], score: float) -> Iterator[str]:
    has_end = fields["state"] == "delayed" and fields.get("why") != "budget"
    if not has_end and math.isinf(score) and score > 0:
        return
    if not 0 < score <= dump.now + _YEARS_MS:
        yield f"is {fields['state']} until {score}"


def _check_ended(_dump: QueueDump, fields: Mapping[str, str], score: float) -> Iterator[str]:
    if score != float(fields.get("finished_at", "nan")):
        yield f"indexed at {score:.0f}, finished at {fields.get('finished_at')}"


_CHECKS: Final[Mapping[str, Callable[[QueueDump, Mapping[str, str], float], Iterator[str]]]] = {
    "waiting": _check_waiting,
    "active": _check_active,
    "completed": _check_ended,
    "failed": _check_ended,
    "cancelled": _check_ended,
}


def _check_satellites(dump: QueueDump, id: str, job: JobDump) -> Iterator[str]:
    named = frozenset(filter(None, job.fields.get("satellites", "").split(",")))
    if named != job.satellites:
        yield f"names satellites {sorted(named)}, has {sorted(job.satellites)}"
    chunks = dump.keys.get(f"job:{id}:chunks")
    if chunks is not None and chunks.ttl is not None:
        yield "its chunks expire although it is not removed"
    for name, length in job.lists.items():
        if length > _MAX_LIST[name]:
            yield f"{name} has {length} entries"


def _check_stream(job: JobDump) -> Iterator[str]:
    ends = [i for i, entry in enumerate(job.chunks) if entry.fields.get("type") == "end"]
    state = job.fields.get("state")
    if len(ends) > 1:
        yield f"its stream has {len(ends)} ends"
    if ends and ends[-1] != len(job.chunks) - 1:
        yield "its stream goes on after the end"
    if state in TERMINAL and not ends:
        yield "its stream has no end"
    if state is not None and state not in TERMINAL and ends:
        yield f"its stream has ended, it is {state}"
    if ends and state in TERMINAL and job.chunks[ends[-1]].fields.get("content") != state:
        yield f"its stream ends as {job.chunks[ends[-1]].fields.get('content')!r}, it is {state}"
    yield from _check_sequence(job.chunks, is_trimmed=job.chunks_trimmed)


def _check_sequence(chunks: tuple[Entry, ...], *, is_trimmed: bool) -> Iterator[str]:
    """Per epoch, numbers without a gap, from 1 where nothing is trimmed; epochs in order."""
    numbers: dict[int, list[int]] = defaultdict(list)
    epochs: list[int] = []
    for entry in chunks:
        epoch, number = int(entry.fields.get("epoch", -1)), int(entry.fields.get("seq", -1))
        epochs.append(epoch)
        if number != 0:  # of the server's own: an end, a new run's reset
            numbers[epoch].append(number)
    if epochs != sorted(epochs):
        yield f"the epochs of its stream are out of order: {epochs}"
    for epoch, found in numbers.items():
        first = found[0] if is_trimmed and epoch == epochs[0] else 1
        if found != list(range(first, first + len(found))):
            yield f"the chunks of epoch {epoch} are numbered {_abridged(found)}"


def _check_usage(usage: Mapping[str, str]) -> Iterator[str]:
    """The totals are the sums of the calls."""
    if not usage:
        return
    sums: Counter[str] = Counter()
    calls = [loads(text) for name, text in usage.items() if name.startswith("call:")]
    for call in calls:
        facts = cast("dict[str, dict[str, Any]]", call)
        sums.update({f"tokens:{name}": count for name, count in facts.get("tokens", {}).items()})
        sums.update(
            {
                f"costs:{name}": int(Decimal(cost) * NANO)
                for name, cost in facts.get("costs", {}).items()
            }
        )
    if calls:
        sums["calls"] = len(calls)
    # What its children have used ("flow_...") was booked on them.
    # What descendants have used is summed beside it, under flow_*.
    totals = {
        name: int(value) for name, value in usage.items() if not name.startswith(("call:", "flow_"))
    }
    if totals != {name: count for name, count in sums.items() if name in totals or count}:
        yield f"its usage says {totals}, its calls add up to {dict(sums)}"


def _check_mailbox(mailbox: Mapping[str, str]) -> Iterator[str]:
    waiting = list(filter(None, mailbox.get("waiting", "").split(",")))
    held = {name.split(":")[1] for name in mailbox if name.startswith("m:")}
    # One that is in the journal already may be left behind by a call that broke off.
    taken = {n for n in held if f"m:{n}:to" in mailbox}
    if set(waiting) - held or held - taken - set(waiting):
        yield f"its mailbox lists messages {waiting}, holds {sorted(held)}"
    if len(waiting) > _MAX_MAIL:
        yield f"its mailbox holds {len(waiting)} messages"


def _check_family(job: JobDump) -> Iterator[str]:
    """A parent that has not ended waits for as many children as have not ended."""
    state = job.fields.get("state", "")
    children = job.hashes.get("children", {})
    alive = sum(1 for key in children if not key.endswith(":end") and f"{key}:end" not in children)
    pending = int(job.fields.get("pending", 0))
    if state not in TERMINAL and pending != alive:
        yield f"waits for {pending} children, {alive} of its children have not ended"
    if state == "waiting_children" and pending <= 0:
        yield "waits for children, though none is pending"


def _check_park(job: JobDump) -> Iterator[str]:
    if job.fields.get("state") != "suspended":
        return
    key = job.fields.get("wait_key", "")
    if not key:
        yield "is suspended without a wait"
    elif key in job.hashes.get("steps", {}):
        yield f"is suspended although its wait {key!r} is over"


def _abridged(numbers: list[int]) -> str:
    return str(numbers) if len(numbers) <= 20 else f"{numbers[:10]} ... {numbers[-10:]}"
