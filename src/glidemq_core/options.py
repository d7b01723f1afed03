"""The options of a job, checked before anything is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

from ._codec import dumps
from ._keys import check_id, check_list, check_name, new_id
from ._units import Money, Seconds, seconds, to_ms, to_nano, whole
from .budget import Budget
from .errors import InvalidOption
from .retry import Backoff, as_backoff
from .throttle import MAX_NAMED, Throttle, wires_of

PRIORITY_DEFAULT = 1000
PRIORITY_MAX = 2048


@dataclass(frozen=True, slots=True, kw_only=True)
class Keep:
    """How long finished jobs stay.

    Attributes:
        count: The newest so many stay; 0 removes at once (the ending stays readable for a minute).
        age: Seconds after which a finished job is removed.
    """

    count: int | None = None
    age: Seconds | None = None


def keep_text(value: bool | int | Keep | None, field: str) -> str | None:
    """The wire form of a retention option: "count:age_ms", either part empty; None for the default."""
    if value is None:
        return None
    if value is False:
        return ":"  # the queue's bounds, whatever the worker's default says
    if value is True:
        return "0:"
    rule = Keep(count=value) if isinstance(value, int) else value
    if not isinstance(rule, Keep):  # pyright: ignore[reportUnnecessaryIsInstance] checked for untyped callers
        raise InvalidOption(field, value, "not a bool, a count or a Keep")
    count = "" if rule.count is None else str(whole(rule.count, f"{field}.count"))
    age = "" if rule.age is None else str(max(1, to_ms(seconds(rule.age, f"{field}.age"))))
    return f"{count}:{age}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Parent:
    """A job that has not ended and is to wait for a new one, once it comes to `wait_for_children`.

    Attributes:
        id, queue: The parent.
        key: The name of the child's result; of two children with one key the first stands. Default: the child's id.
        on_failure: What the child's end means for the parent if it does not complete (see `FlowJob.on_child_failure`).
    """

    id: str
    queue: str
    key: str | None = None
    on_failure: Literal["fail", "ignore", "collect"] = "fail"

    def __post_init__(self) -> None:
        check_name(self.id, "parent.id")
        check_name(self.queue, "parent.queue")
        if self.key is not None:
            check_name(self.key, "parent.key")
        if self.on_failure not in ("fail", "ignore", "collect"):
            raise InvalidOption("parent.on_failure", self.on_failure, "not fail, ignore or collect")


@dataclass(frozen=True, slots=True, kw_only=True)
class NewJob:
    """A job to be added. The arguments of `Queue.add`, for `Queue.add_many`.

    Attributes:
        name: What kind of job; a worker can have one handler per name.
        data: Anything that JSON can hold, at most 1 MiB of it.
        job_id: An id of one's own; adding it again while the job is known is a duplicate, not a second job.
        delay: Seconds before it may start.
        priority: 0 to 2048, lower is sooner.
        lifo: Last in, first out among the jobs of its priority.
        attempts: How often it is tried in all.
        backoff: The wait between attempts: a Backoff, seconds, or the name of a function of the worker's.
        timeout: Longest run, in seconds; parked time does not count.
        idle_timeout: Longest silence of a run (no chunk, no progress), in seconds.
        lock_duration: Length of its lease in seconds: how long a dead worker goes unnoticed. Default: the worker's.
        ttl: Longest time from add to first start, in seconds; later it fails as "expired".
        budgets: Ids of budgets that its model calls spend from; they are opened beforehand (see `Ledger`).
        budget: One of its own, opened with it, in its ledger (see `Queue.get_flow_budget`), and let go 30 days later.
        limits: Limiters that its model calls pass, by name.
        ledger: The ledger of both.
        estimate: What it will use, {"tokens": n, "cost": amount}: it does not start before its budgets and limiters
            have room for that.
        stop_when_no_readers: Cancel it once nobody has read its stream for so many seconds while it ran; looked at with
            every heartbeat, so at least 15 s make sense.
        parent: A job, of any queue, that waits for this one; its budgets are this one's, too. Not with `job_id`: the
            parent's key tells a repeat.
        fallbacks: Models to try in order, each {"model": ..., "provider": ..., "params": ...}.
        remove_on_complete, remove_on_fail: True removes at once, a count or Keep bounds what stays; False keeps it
            within the queue's own bounds. Default: the worker's.
    """

    name: str
    data: object = None
    job_id: str | None = None
    delay: Seconds = 0
    priority: int = PRIORITY_DEFAULT
    lifo: bool = False
    attempts: int = 1
    backoff: Backoff | Seconds | str | None = None
    timeout: Seconds | None = None
    idle_timeout: Seconds | None = None
    lock_duration: Seconds | None = None
    ttl: Seconds | None = None
    budgets: Sequence[str] = ()
    budget: Budget | None = None
    limits: Mapping[str, Throttle] | None = None
    ledger: str = "main"
    estimate: Mapping[str, Any] | None = None
    stop_when_no_readers: Seconds | None = None
    parent: Parent | None = None
    fallbacks: Sequence[Mapping[str, Any]] | None = None
    remove_on_complete: bool | int | Keep | None = None
    remove_on_fail: bool | int | Keep | None = None


def to_wire(job: NewJob, prefix: str = "") -> dict[str, object]:
    """Check a new job and answer its wire form (docs: lua/functions/job_add.lua).

    Raises:
        InvalidOption: An option is refused; its field is named after `prefix`.
        PayloadTooLarge: The data is too large.
    """
    if not isinstance(job, NewJob):  # pyright: ignore[reportUnnecessaryIsInstance] checked for untyped callers
        raise InvalidOption(prefix.removesuffix(".") or "job", job, "not a NewJob")
    if job.parent is not None and (not isinstance(job.parent, Parent) or job.job_id is not None):  # pyright: ignore[reportUnnecessaryIsInstance] checked for untyped callers
        raise InvalidOption(f"{prefix}parent", job.parent, "a Parent, and not together with job_id")
    wire: dict[str, object] = {"name": check_name(job.name, f"{prefix}name")}
    if job.job_id is None:
        wire["id"] = new_id()
    else:
        wire["id"] = check_name(job.job_id, f"{prefix}job_id")
        wire["custom"] = True
    if job.data is not None:
        wire["data"] = dumps(job.data, f"{prefix}data")
    _add_order(wire, job, prefix)
    _add_lua_options(wire, job, prefix)
    worker_side = _worker_options(job, prefix)
    if worker_side:
        wire["options"] = dumps(worker_side, f"{prefix}options", limit=65_536)
    return wire


def _add_order(wire: dict[str, object], job: NewJob, prefix: str) -> None:
    if job.priority != PRIORITY_DEFAULT or not isinstance(job.priority, int):  # pyright: ignore[reportUnnecessaryIsInstance] checked for untyped callers
        wire["priority"] = whole(job.priority, f"{prefix}priority", high=PRIORITY_MAX)
    if job.lifo is not False:
        if job.lifo is not True:
            raise InvalidOption(f"{prefix}lifo", job.lifo, "not a bool")
        wire["lifo"] = True
    if job.delay != 0:
        wire["delay_ms"] = to_ms(seconds(job.delay, f"{prefix}delay"))


def _add_lua_options(wire: dict[str, object], job: NewJob, prefix: str) -> None:
    if job.lock_duration is not None:
        lock = seconds(job.lock_duration, f"{prefix}lock_duration", low=0.1)
        if lock > 86_400:
            raise InvalidOption(f"{prefix}lock_duration", job.lock_duration, "longer than a day")
        wire["lock_ms"] = to_ms(lock)
    if job.stop_when_no_readers is not None:
        unread = seconds(job.stop_when_no_readers, f"{prefix}stop_when_no_readers", low=0.1)
        wire["unread_ms"] = to_ms(min(unread, 86_400.0))
    if job.budgets or job.limits:
        wire["ledger"] = job.ledger
    if job.ttl is not None:
        wire["ttl_ms"] = to_ms(seconds(job.ttl, f"{prefix}ttl", low=0.001))
    if job.remove_on_complete is not None:
        wire["keep_completed"] = keep_text(job.remove_on_complete, f"{prefix}remove_on_complete")
    if job.remove_on_fail is not None:
        wire["keep_failed"] = keep_text(job.remove_on_fail, f"{prefix}remove_on_fail")


def _worker_options(job: NewJob, prefix: str) -> dict[str, object]:
    options: dict[str, object] = {}
    if job.attempts != 1 or type(job.attempts) is not int:  # True equals 1, but is refused
        options["attempts"] = whole(job.attempts, f"{prefix}attempts", low=1, high=1_000_000)
    backoff = as_backoff(job.backoff, f"{prefix}backoff")
    if backoff is not None:
        options["backoff"] = backoff.to_wire()
    if job.timeout is not None:
        options["timeout"] = seconds(job.timeout, f"{prefix}timeout", low=0.001)
    if job.idle_timeout is not None:
        options["idle_timeout"] = seconds(job.idle_timeout, f"{prefix}idle_timeout", low=0.001)
    options |= _money_options(job, prefix)
    if job.fallbacks is not None:
        options |= _fallbacks(job.fallbacks, f"{prefix}fallbacks")
    return options


def _money_options(job: NewJob, prefix: str) -> dict[str, object]:
    options: dict[str, object] = {}
    if job.budget is not None and not isinstance(job.budget, Budget):  # pyright: ignore[reportUnnecessaryIsInstance] checked for untyped callers
        raise InvalidOption(f"{prefix}budget", job.budget, "not a Budget")
    budgets = check_list(job.budgets, f"{prefix}budgets")
    if len(budgets) > MAX_NAMED:
        raise InvalidOption(f"{prefix}budgets", budgets, f"more than {MAX_NAMED}")
    if budgets:
        checked = [check_id(one, f"{prefix}budgets[{i}]") for i, one in enumerate(budgets)]
        options["budgets"] = list(dict.fromkeys(checked))
    if job.limits:
        options["limits"] = wires_of(job.limits, f"{prefix}limits")
    if job.ledger != "main":
        options["ledger"] = check_name(job.ledger, f"{prefix}ledger")
    if job.estimate is not None:
        options["estimate"] = _estimate(job.estimate, f"{prefix}estimate")
    return options


def _estimate(estimate: object, field: str) -> dict[str, int]:
    if not isinstance(estimate, Mapping):
        raise InvalidOption(field, estimate, 'not a mapping with "tokens" and "cost"')
    plain = {str(k): v for k, v in cast("Mapping[object, object]", estimate).items()}
    unknown = set(plain) - {"tokens", "cost"}
    if unknown:
        raise InvalidOption(field, sorted(unknown), "unknown; known are tokens and cost")
    checked: dict[str, int] = {}
    if plain.get("tokens") is not None:
        checked["tokens"] = whole(plain["tokens"], f"{field}.tokens")
    if plain.get("cost") is not None:
        checked["cost"] = to_nano(cast("Money", plain["cost"]), f"{field}.cost")
    return checked


def _fallbacks(entries: object, field: str) -> dict[str, object]:
    if not isinstance(entries, Sequence) or isinstance(entries, str | bytes):
        raise InvalidOption(field, entries, "not a sequence of mappings with a model")
    checked = [
        _fallback(entry, f"{field}[{i}]")
        for i, entry in enumerate(cast("Sequence[object]", entries))
    ]
    return {"fallbacks": checked} if checked else {}


def _fallback(entry: object, field: str) -> dict[str, object]:
    if not isinstance(entry, Mapping):
        raise InvalidOption(field, entry, "not a mapping with a model")
    given = cast("Mapping[object, object]", entry)
    plain = {str(key): value for key, value in given.items()}
    unknown = set(plain) - {"model", "provider", "params"}
    if unknown:
        raise InvalidOption(
            field, given, f"unknown {sorted(unknown)}; known are model, provider, params"
        )
    if not isinstance(plain.get("model"), str) or not plain["model"]:
        raise InvalidOption(f"{field}.model", plain.get("model"), "not the name of a model")
    return plain
