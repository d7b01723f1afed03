"""The queue: adding jobs, looking at them, steering them, reading what they stream."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from secrets import token_hex
from types import TracebackType
from typing import Any, Literal, Self, cast

from . import _keys, options
from ._adopting import adopt
from ._codec import as_type, dumps, loads, texts_of
from ._keys import new_id
from ._ledger import LedgerClient
from ._own_budgets import drop_unused, open_own, own_of, with_own
from ._reading import QueueReader
from ._units import Seconds, whole
from .budget import Budget, BudgetState
from .errors import InvalidOption, JobNotFound
from .flow import ChildEnd, ends_of
from .job import STATES, Job, JobUsage, State, job_of
from .options import Keep, NewJob, Parent
from .retry import Backoff
from .signals import Suspended
from .stream import JobStream
from .throttle import Throttle, wires_of

Removal = bool | int | Keep | None


class JobHandle:
    """A job that was added: its id, and the calls of its queue for it.

    Attributes:
        id: The job's id.
        is_duplicate: A job of this id was there before; nothing was added or changed.
    """

    __slots__ = ("_queue", "id", "is_duplicate")

    def __init__(self, queue: Queue, id: str, *, is_duplicate: bool = False) -> None:
        self._queue = queue
        self.id = id
        self.is_duplicate = is_duplicate

    def stream(self, after: str | None = None) -> JobStream:
        """See Queue.stream."""
        return self._queue.stream(self.id, after=after)

    async def result(self, timeout: Seconds | None = None) -> Any:
        """See Queue.result."""
        return await self._queue.result(self.id, timeout=timeout)

    async def snapshot(self) -> Job | None:
        """See Queue.get."""
        return await self._queue.get(self.id)

    async def cancel(self) -> Literal["cancelled", "requested", "ended"]:
        """See Queue.cancel."""
        return await self._queue.cancel(self.id)

    async def signal(self, name: str, data: object = None, *, type: Any = None) -> bool:
        """See Queue.signal."""
        return await self._queue.signal(self.id, name, data, type=type)

    def __repr__(self) -> str:
        return f"<JobHandle {self.id!r}{' duplicate' if self.is_duplicate else ''}>"


class Queue(QueueReader):
    """A queue of jobs on a Valkey server.

    Args:
        name: Its name: 1 to 256 characters without braces, colons, white space.
        connection: URL of the server (`valkey://user:password@host:port/0`); default: the environment's `GLIDEMQ_URL`,
            else a server that is started here, with its data in `./.glidemq`.

    Nothing is connected until the first call. Close it (`await queue.close()` or `async with`) to let go of its
    connections.
    """

    async def add(
        self,
        name: str,
        data: object = None,
        *,
        job_id: str | None = None,
        delay: Seconds = 0,
        priority: int = options.PRIORITY_DEFAULT,
        lifo: bool = False,
        attempts: int = 1,
        backoff: Backoff | Seconds | str | None = None,
        timeout: Seconds | None = None,
        idle_timeout: Seconds | None = None,
        lock_duration: Seconds | None = None,
        ttl: Seconds | None = None,
        budgets: Sequence[str] = (),
        budget: Budget | None = None,
        limits: Mapping[str, Throttle] | None = None,
        ledger: str = "main",
        estimate: Mapping[str, Any] | None = None,
        stop_when_no_readers: Seconds | None = None,
        parent: Parent | None = None,
        fallbacks: Sequence[Mapping[str, Any]] | None = None,
        remove_on_complete: Removal = None,
        remove_on_fail: Removal = None,
    ) -> JobHandle:
        """Add a job. Once this returns, the job is in the queue; a repeat after a lost reply adds it only once.

        Args: as the attributes of `NewJob`.

        Raises:
            InvalidOption: An option is refused; nothing was written.
            PayloadTooLarge: `data` is over 1 MiB as JSON; nothing was written.
            OutOfMemory: The server is full; nothing was written.
            JobNotFound, WrongState: There is no such `parent`, or it has ended; nothing was written.
            ConnectionLost: With outcome "unknown" the job may be there: adding it again with `id` as its `job_id` is safe.
        """
        new = NewJob(
            name=name,
            data=data,
            job_id=job_id,
            delay=delay,
            priority=priority,
            lifo=lifo,
            attempts=attempts,
            backoff=backoff,
            timeout=timeout,
            idle_timeout=idle_timeout,
            lock_duration=lock_duration,
            ttl=ttl,
            budgets=budgets,
            budget=budget,
            limits=limits,
            ledger=ledger,
            estimate=estimate,
            stop_when_no_readers=stop_when_no_readers,
            parent=parent,
            fallbacks=fallbacks,
            remove_on_complete=remove_on_complete,
            remove_on_fail=remove_on_fail,
        )
        new, own = with_own(new)
        wire = options.to_wire(new)
        parts = await self._opened.here()
        if own is not None:
            await open_own(parts.client, [own])
        if parent is not None:
            id, is_duplicate = await adopt(parts.client, self.name, wire, parent)
        else:
            id, is_duplicate = cast("str", wire["id"]), await parts.adder.add(wire) == "d"
        if own is not None and is_duplicate:
            await drop_unused(parts.client, [own])
        return JobHandle(self, id, is_duplicate=is_duplicate)

    async def add_many(self, jobs: Iterable[NewJob]) -> list[JobHandle]:
        """Add many jobs, in order, about a hundred per call. Answers a handle for each, aligned with `jobs`.

        Raises:
            InvalidOption: An option of one of them is refused ("jobs[3].delay"); none was written.
        """
        jobs = list(jobs)
        if any(isinstance(job, NewJob) and job.parent is not None for job in jobs):  # pyright: ignore[reportUnnecessaryIsInstance] checked later
            raise InvalidOption("jobs", len(jobs), "children of other jobs are added one by one")
        pairs = [with_own(job) for job in jobs]
        wires = [options.to_wire(job, f"jobs[{i}].") for i, (job, _) in enumerate(pairs)]
        if not wires:
            return []
        parts = await self._opened.here()
        await open_own(parts.client, [own for _, own in pairs if own])
        verdicts = await parts.adder.add_many(wires)
        unused = [
            own for (_, own), verdict in zip(pairs, verdicts, strict=True) if own and verdict == "d"
        ]
        await drop_unused(parts.client, unused)
        return [
            JobHandle(self, cast("str", wire["id"]), is_duplicate=verdict == "d")
            for wire, verdict in zip(wires, verdicts, strict=True)
        ]

    async def get(self, id: str) -> Job | None:
        """A snapshot of a job, or None if it is not known."""
        fields, usage, errors, score = await self._call(
            "job_get", {"id": _keys.check_name(id, "id")}
        )
        if not fields:
            return None
        return job_of(
            id,
            texts_of(fields),
            texts_of(usage),
            [text.decode() for text in errors],
            score.decode(),
        )

    async def jobs(self, state: State, *, start: int = 0, limit: int = 100) -> list[Job]:
        """Snapshots of the jobs in one state, in the order of its index (waiting: next first; ended: oldest first).

        Args:
            start: How many to skip.
            limit: How many at most, up to 1,000.
        """
        if state not in STATES:
            raise InvalidOption("state", state, f"not one of {', '.join(STATES)}")
        args: dict[str, object] = {
            "state": state,
            "start": whole(start, "start"),
            "limit": whole(limit, "limit", low=1, high=1000),
        }
        ids = [raw.decode() for raw in await self._call("queue_list", args)]
        found = await asyncio.gather(*(self.get(id) for id in ids))
        return [job for job in found if job is not None]

    async def counts(self) -> dict[State, int]:
        """How many jobs are in each state."""
        raw = await self._raw_counts()
        raw["waiting"] += raw.pop("suspects")
        return {state: raw[state] for state in STATES}

    async def pause(self) -> None:
        """Give out no more jobs; running ones go on. Holds for all workers, until `resume()`."""
        await self._call("queue_pause", {"paused": True})

    async def resume(self) -> None:
        """Give out jobs again."""
        await self._call("queue_pause", {"paused": False})

    async def set_limits(self, limits: Mapping[str, Throttle] | None) -> None:
        """Say which limiters the model calls of all jobs of this queue pass, whoever added them; None: none.

        Workers hear of it with their next turn. The limiters are in each job's own ledger.

        Raises:
            InvalidOption: They are not throttles by name, or more than 16.
        """
        wires = wires_of(limits, "limits")
        await self._call("queue_limit", {"limits": dumps(wires, "limits")})

    async def is_paused(self) -> bool:
        """Is the queue paused?"""
        return bool((await self._raw_counts())["paused"])

    async def cancel(self, id: str) -> Literal["cancelled", "requested", "ended"]:
        """Cancel a job in any state.

        Returns:
            "cancelled": it was not running and has ended now; "requested": it runs and its handler is being stopped,
            whatever it returns the job ends as cancelled; "ended": it had ended before.

        Raises:
            JobNotFound: It is not known.
        """
        return (await self._call("job_cancel", {"id": _keys.check_name(id, "id")})).decode()

    async def signal(
        self,
        id: str,
        name: str,
        data: object = None,
        *,
        signal_id: str | None = None,
        type: Any = None,
    ) -> bool:
        """Send a message to a job: the next wait for `name` takes it, whether it has begun or not.

        Args:
            data: What it carries, at most 64 KiB as JSON.
            signal_id: The message's id; sending the same id twice is one message. Default: a new one.
            type: What the waiting job takes (see `RunningJob.wait_for_signal`): data that do not fit are not sent.

        Returns:
            False if this message was sent before.

        Raises:
            InvalidOption: The data do not fit `type`; the field says where.
            JobNotFound: The job is not known.
            WrongState: The job has ended, or 100 messages wait in its mailbox.
        """
        if type is not None:
            as_type(loads(dumps(data, "data", limit=65_536)), type, "data")
        message_id = new_id() if signal_id is None else _keys.check_name(signal_id, "signal_id")
        message = {
            "id": message_id,
            "name": _keys.check_name(name, "name"),
            "data": data,
            "at": round(time.time() * 1000),
        }
        args: dict[str, object] = {
            "id": _keys.check_name(id, "id"),
            "signal": message_id,
            "name": name,
            "message": dumps(message, "data", limit=65_536),
        }
        return await self._call("job_signal", args) == 1

    async def children(self, id: str) -> dict[str, ChildEnd]:
        """How the children of a job have ended, those that have, by key."""
        _, flat = await self._call("job_children", {"id": _keys.check_name(id, "id")})
        return ends_of(flat)

    async def flow_usage(self, id: str) -> JobUsage:
        """What a job and all its descendants that have ended have used.

        Raises:
            JobNotFound: It is not known.
        """
        job = await self.get(id)
        if job is None:
            raise JobNotFound(id, queue=self.name)
        return job.flow_usage

    async def budget(self, id: str, *, ledger: str = "main") -> BudgetState | None:
        """A budget as it is now, by its own id or by that of a job that has one (see `get_flow_budget`); None if there
        is none.
        """
        _keys.check_id(id)
        _keys.check_name(ledger, "ledger")
        found = await LedgerClient((await self._opened.here()).client, ledger).budget(id)
        if found is not None:
            return found
        try:
            return await self.get_flow_budget(id)
        except InvalidOption:  # a budget could be called that, a job could not
            return None

    async def get_flow_budget(self, id: str) -> BudgetState | None:
        """The budget of a job's flow, else the one that was made for this job; None if it has neither.

        Args:
            id: Any job of the flow.
        """
        place = await self._own_budget(id)
        if place is None:
            return None
        return await LedgerClient((await self._opened.here()).client, place[0]).budget(place[1])

    async def update_flow_budget(self, id: str, budget: Budget) -> BudgetState:
        """Replace the caps of the budget of a job's flow, else of its own; jobs that wait for room go on.

        Raises:
            InvalidOption: It has neither.
        """
        place = await self._own_budget(id)
        if place is None:
            raise InvalidOption("id", id, "neither its flow nor the job itself has a budget")
        client = LedgerClient((await self._opened.here()).client, place[0])
        await client.open(place[1], budget, update=True)
        state = await client.budget(place[1])
        if state is None:
            raise InvalidOption("id", id, "its budget was dropped")
        return state

    async def _own_budget(self, id: str) -> tuple[str, str] | None:
        job = await self.get(id)
        return None if job is None else own_of(job)

    async def suspended(self, *, start: int = 0, limit: int = 100) -> list[Suspended]:
        """The jobs that wait for a signal, by deadline: which signal, why, since when."""
        return [
            Suspended(
                job_id=job.id,
                job_name=job.name,
                waits_for=job.waits_for,
                reason=job.reason,
                since=job.waits_since,
                deadline=job.due_at,
            )
            for job in await self.jobs("suspended", start=start, limit=limit)
        ]

    async def remove(self, id: str) -> None:
        """Remove a job that is not running, with everything it owns.

        Raises:
            JobNotFound: It is not known.
            WrongState: It is running: cancel it first.
        """
        await self._call("job_remove", {"id": _keys.check_name(id, "id"), "nonce": token_hex(8)})

    async def retry(self, id: str, *, fresh: bool = False) -> None:
        """Put a failed or cancelled job back into the line; attempts and stalls count from the beginning.

        Args:
            fresh: Forget the results of its steps, too.

        Raises:
            JobNotFound: It is not known.
            WrongState: It is neither failed nor cancelled.
        """
        await self._call(
            "job_retry", {"id": _keys.check_name(id, "id"), "fresh": fresh, "nonce": token_hex(8)}
        )

    async def promote(self, id: str) -> None:
        """Start a delayed job now.

        Raises:
            JobNotFound: It is not known.
            WrongState: It is not delayed.
        """
        await self._call("job_promote", {"id": _keys.check_name(id, "id"), "nonce": token_hex(8)})

    async def log(self, id: str, *, start: int = 0, limit: int = 1000) -> list[str]:
        """The lines that a job's handler logged, oldest first."""
        args: dict[str, object] = {
            "id": _keys.check_name(id, "id"),
            "start": whole(start, "start", high=10**9),
            "limit": whole(limit, "limit", low=1, high=1000),
        }
        return [line.decode() for line in await self._call("job_log", args)]

    async def close(self) -> None:
        """Let go of the connections. Streams that are being read end."""
        await self._opened.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def _raw_counts(self) -> dict[str, int]:
        flat = cast("list[Any]", await self._call("queue_counts", {}))
        return {flat[i].decode(): flat[i + 1] for i in range(0, len(flat), 2)}

    def __repr__(self) -> str:
        return f"<Queue {self.name!r}>"
