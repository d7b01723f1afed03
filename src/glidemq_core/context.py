"""The running job, as its handler sees it."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextvars import ContextVar
from typing import Any, Final, cast

from . import _codec, _keys
from ._children import Children
from ._host import Host
from ._paid import PaidCalls
from ._run import Run
from ._units import Seconds, seconds
from ._waiting import NO_INPUTS, OnBegun, OnChange, Waiting
from .errors import GlideMQError, InvalidOption, LeaseLost
from .flow import ChildEnd, OnChildFailure
from .outcome import Delayed
from .signals import Signal, signal_of, typed

logger = logging.getLogger(__name__)

_current: ContextVar[Any] = ContextVar("glidemq_current_job", default=None)

_LOG_BYTES: Final = 4096
_MISSING: Final = object()


def current_job() -> Any:
    """The job whose handler is running here (a RunningJob; in the thread of a sync handler a ThreadJob), else None."""
    return _current.get()


class RunningJob(PaidCalls):
    """The job in its handler's hands.

    Every write carries the run's lease token: once the run is no longer the job's current run, writes raise LeaseLost
    and change nothing. Only `report_usage` is taken all the same, since that money is gone.

    Attributes:
        id, name: As added.
        fallback_index: 0 while the job's own choice is to be used, n for the n-th of its `fallbacks`. It advances
            from attempt to attempt on errors that say `fallback = True`; ready-made handlers walk the list
            within one attempt.
    """

    __slots__ = ("_data", "_exits", "fallback_index", "name")

    def __init__(self, run: Run, host: Host) -> None:
        super().__init__(run, host)
        self.name = run.claim.name
        self.fallback_index = run.claim.fallback_index
        self._data: Any = _MISSING
        self._exits: list[Callable[[], Awaitable[object]]] | None = None

    @property
    def data(self) -> Any:
        """The job's data, decoded on first use."""
        if self._data is _MISSING:
            self._data = _codec.loads(self._run.data) if self._run.data else None
        return self._data

    @property
    def attempt(self) -> int:
        """The attempt's number, from 1: failures + 1."""
        return self._run.claim.attempt

    @property
    def max_attempts(self) -> int:
        """How often the job is tried in all."""
        return self._run.options.get("attempts", 1)

    @property
    def run(self) -> int:
        """The run's number, from 1; a run that was lost or parked is followed by another of the same attempt."""
        return self._run.claim.run

    @property
    def queue(self) -> str:
        """The name of the job's queue."""
        return self._host.queue

    @property
    def cancelled(self) -> bool:
        """Has the run been stopped (cancelled, timed out, lease lost)? For handlers in threads to look at."""
        return self._run.stop_reason is not None

    @property
    def fallbacks(self) -> Sequence[Mapping[str, Any]]:
        """The models to try in order, as added."""
        return self._run.options.get("fallbacks", ())

    @property
    def current_fallback(self) -> Mapping[str, Any] | None:
        """The entry of `fallbacks` that is to be used now; None while it is the job's own first choice."""
        index = min(self.fallback_index, len(self.fallbacks))
        return self.fallbacks[index - 1] if index else None

    async def stream_chunk(self, type: str, content: str = "", **fields: object) -> None:
        """Append a chunk to the job's stream; readers see it within milliseconds.

        Returns as soon as the chunk is on its way; waits only while more than 1 MiB of this job's is unsent.

        Args:
            type: "content", "reasoning", "tool_call", ... ("end" and "reset" are the queue's own).
            content: Its text.
            fields: Further facts, stored as JSON.
        """
        if type in ("end", "reset") or not type:
            raise InvalidOption("type", type, "'end' and 'reset' are written by the queue itself")
        self._check_lease()
        if self.write_chunks([(_codec.checked_text(type, "type"), content, fields)]):
            await self.room()

    def write_chunks(self, chunks: Iterable[tuple[str, str, Mapping[str, object]]]) -> bool:
        """Append chunks (type, content, fields) as `stream_chunk` does, for code that sees every token.

        Nothing is written once the run has lost its lease. A sign of life, even without chunks.

        Returns:
            Whether to await `room` before the next ones.
        """
        run, host = self._run, self._host
        run.touched_at = host.now()
        if run.stop_reason == "lease_lost" or (run.journal is not None and self._is_replaying):
            return False
        writer = host.writer
        for type, content, fields in chunks:
            writer.put(run, type, content, fields)
        return writer.is_full(run)

    async def room(self) -> None:
        """Wait while more than 1 MiB of this job's chunks is unsent."""
        await self._host.writer.room(self._run)
        self._check_lease()

    async def progress(self, value: object) -> None:
        """Report progress: any JSON; the last one is on the job's snapshot."""
        await self._update({"progress": _codec.dumps(value, "progress", limit=65_536)})

    async def log(self, text: str) -> None:
        """Append a line to the job's log (the last 1,000 stay; a line is cut at 4 KiB)."""
        await self._update({"log": [_codec.checked_text(text, "text")[:_LOG_BYTES]]})

    async def update_data(self, data: object) -> None:
        """Replace the job's data, for this and later runs."""
        await self._update({"data": _codec.dumps(data, "data")})
        self._data = data

    async def step(
        self,
        name: str,
        function: Callable[..., Any],
        *args: Any,
        inputs: object = NO_INPUTS,
        on_change: OnChange = "raise",
        paid: bool = False,
        on_begun: OnBegun = "retry",
        salvage: Callable[[str], Any] | None = None,
    ) -> Any:
        """Call `function(*args)` once and remember what it returned, across attempts, parks and crashes.

        A handler that starts again from the top gets the stored result. Steps of one name are told apart by their
        order. A step that raises is not stored. Waits belong before or after a step, not inside.

        Args:
            inputs: What its result depends on. Default: those arguments that JSON can hold.
            on_change: The stored result is for other inputs: "raise" StepChanged, "rerun" it, or "keep" the result.
            paid: It spends money: note its beginning before, so that a crash in the middle is known.
            on_begun: A paid step that began in an earlier run and never ended: "retry" it, "fail" the job, or "salvage"
                what it had streamed.
            salvage: Called instead of `function` then, with the text that the interrupted step had streamed (as far as
                it had reached the server; of steps side by side, the text of all). What it returns is the step's result.
                If it streams nothing, readers keep that text; what it streams replaces it.

        Raises:
            StepChanged: See `on_change`.
        """
        return await self._waiting.step(
            name,
            function,
            args,
            inputs=inputs,
            on_change=on_change,
            paid=paid,
            on_begun=on_begun,
            salvage=salvage,
        )

    async def sleep(self, duration: Seconds) -> None:
        """Wait without holding anything: the job is parked, and its handler starts again from the top when it is due."""
        await self._waiting.sleep(duration)

    async def move_to_delayed(self, delay: Seconds, *, next_step: str | None = None) -> None:
        """Give the job back until `delay` from now, without using an attempt; its handler starts again from the top.

        Args:
            next_step: Kept in the data as "step", for handlers that are written as a state machine. The data is then a
                mapping.
        """
        wait = seconds(delay, "delay")
        if next_step is not None:
            data: object = self.data
            if not isinstance(data, dict):
                raise InvalidOption("next_step", next_step, "needs data that is a mapping")
            await self.update_data({**cast("dict[str, object]", data), "step": next_step})
        await self._waiting.park(Delayed("delay", wait))

    async def wait_for_signal(
        self,
        name: str,
        *,
        timeout: Seconds | None = None,
        reason: str = "",
        type: Any = None,
    ) -> Signal:
        """Wait for a message sent with `queue.signal(id, name, data)`, without holding anything.

        One that was sent before is taken at once. Messages of a name are taken in order, each once.

        Args:
            timeout: Seconds, counted from the first time the job came here.
            reason: For listings.
            type: What the signal's data are to be: a class of msgspec, dataclasses or pydantic, or what typing can say.

        Raises:
            SignalTimeout: It did not come in time.
            SignalMismatch: Its data do not fit `type`. It has been taken; catch this to wait for another one.
        """
        _keys.check_name(name, "name")
        wait = None if timeout is None else seconds(timeout, "timeout")
        signal = await self._waiting.signal(
            "signal", name, timeout=wait, reason=reason, job_id=self.id
        )
        return signal if type is None else typed(signal, type, self.id)

    async def suspend(self, *, reason: str = "", timeout: Seconds | None = None) -> Signal:
        """Wait for a signal of any name; see `wait_for_signal`."""
        wait = None if timeout is None else seconds(timeout, "timeout")
        return await self._waiting.signal(
            "suspend", "*", timeout=wait, reason=reason, job_id=self.id
        )

    async def add_child(
        self,
        name: str,
        data: object = None,
        *,
        queue: str | None = None,
        key: str | None = None,
        on_failure: OnChildFailure = "fail",
        options: Mapping[str, Any] | None = None,
    ) -> str:
        """Add a job that this one can wait for; answers its id. A handler that starts again finds the same child.

        Args:
            queue: Its queue. Default: this job's.
            key: The name of its result. Default: `name`, numbered.
            on_failure: What its end means for this job if it does not complete (see `FlowJob.on_child_failure`).
            options: Further options of `Queue.add`, by name.

        Raises:
            InvalidOption: An option is refused, or the job's flow has given it a child of that key. Nothing was added.
        """
        self._check_lease()
        return await Children(self._run, self._host).add(
            name, data, queue=queue, key=key, on_failure=on_failure, options=options or {}
        )

    async def wait_for_children(self) -> dict[str, ChildEnd]:
        """Wait until all children have ended, without holding anything; answers their endings by key."""
        self._check_lease()
        return await self._waiting.children(Children(self._run, self._host).ended)

    @property
    def signals(self) -> list[Signal]:
        """The messages that waits of this job have taken."""
        return [signal_of(entry) for entry in self._waiting.journal.signals()]

    @property
    def _waiting(self) -> Waiting:
        return Waiting(self._run, self._host)

    async def reset_stream(self, reason: str, *, call: str) -> None:
        """Tell readers to drop what one model call has written (everything since its `start` chunk)."""
        self._check_lease()
        self._host.writer.put(self._run, "reset", reason, {"call": call})

    async def note_hops(self, hops: Sequence[Mapping[str, object]]) -> None:
        """Keep on the job which models were tried, and why they were left: the whole list each time."""
        await self._update({"hops": _codec.dumps(list(hops), "hops", limit=65_536)})

    def on_exit(self, callback: Callable[[], Awaitable[object]]) -> None:
        """Have `callback` awaited when the handler has ended, however it did, before its outcome is handed in."""
        if self._exits is None:
            self._exits = []
        self._exits.append(callback)

    async def exit(self) -> None:
        """Run the callbacks of `on_exit`, last first. The worker does this."""
        for callback in reversed(self._exits or ()):
            try:
                await callback()
            except (
                Exception
            ) as error:  # a job has to end, whatever is wrong with what cleans up after it
                logger.warning(
                    "job %s: clearing up after its handler failed: %s",
                    self.id,
                    error,
                    exc_info=not isinstance(error, GlideMQError),
                )

    def touch(self) -> None:
        """A sign of life that is no chunk: renews `idle_timeout`."""
        self._run.touched_at = self._host.now()

    @property
    def _is_replaying(self) -> bool:
        """Is this run on its way to where an earlier one stopped? What it says outside of steps was said before."""
        return (
            self._run.journal is not None and self._run.busy == 0 and self._run.journal.is_replaying
        )

    def _check_lease(self) -> None:
        if self._run.stop_reason == "lease_lost":
            raise LeaseLost(self.id, worker=self._host.name)

    async def _update(self, change: dict[str, object]) -> None:
        self._check_lease()
        if self._is_replaying and "data" not in change:
            return
        run = self._run
        run.touched_at = self._host.now()
        async with run.updating:
            run.updates += 1
            args = {"id": self.id, "token": run.token, "n": run.updates, **change}
            try:
                await self._host.client.call("job_update", self._host.root, args)
            except LeaseLost:
                run.stop("lease_lost")
                raise LeaseLost(self.id, worker=self._host.name) from None

    def __repr__(self) -> str:
        return f"<RunningJob {self.id!r} {self.name!r} attempt={self.attempt} run={self.run}>"
