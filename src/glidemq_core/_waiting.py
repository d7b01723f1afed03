"""Steps and waits of a running job: what makes a handler safe to start again from the top.

A park never raises through the handler's code: the awaitable registers it and then waits for a future that never comes.
Once steps and model calls in flight have ended, the run's task is cancelled, and the executor turns that into the park.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, Literal, NoReturn, TypeVar, cast

from . import _codec
from ._journal import NO_INPUTS, Journal, input_hash
from ._salvage import partial_text
from ._units import Seconds, seconds, to_ms
from .errors import (
    InvalidOption,
    JobNotFound,
    LeaseLost,
    PossiblyBilled,
    SignalTimeout,
    StepChanged,
    UnrecoverableError,
)
from .outcome import Delayed, Outcome, WaitingChildren
from .outcome import Suspended as SuspendedOutcome
from .signals import Signal, signal_of

if TYPE_CHECKING:
    from ._host import Host
    from ._run import Run
    from .flow import ChildEnd

T = TypeVar("T")

_ENTRY_BYTES: Final = 262_144

OnChange = Literal["raise", "rerun", "keep"]
OnBegun = Literal["retry", "fail", "salvage"]


class _Step:
    """A step that is being performed holds off the parks of its run, but not those that it comes to itself."""

    def __init__(self, run: Run, name: str, key: str) -> None:
        self.name = name
        self.key = key
        self._run = run
        self._parks = 0
        run.busy += 1

    def park(self) -> None:
        """It has come to a park (a full budget): the next run begins it anew."""
        self._parks += 1
        if self._parks == 1:
            self._run.busy -= 1

    def withdraw(self) -> None:
        """Its park was cancelled, by the step itself."""
        self._parks -= 1
        if not self._parks:
            self._run.busy += 1

    def end(self) -> None:
        """It has returned or raised."""
        if not self._parks:
            self._run.busy -= 1
        self._run.park_if_idle()


# Those that the code running here is inside of, the outermost first.
_steps: ContextVar[tuple[_Step, ...]] = ContextVar("glidemq_steps", default=())


def steps_here() -> tuple[_Step, ...]:
    """The steps that the code running here is inside of."""
    return _steps.get()


@contextmanager
def inside_of(steps: tuple[_Step, ...]) -> Generator[None]:
    """Run code as if it were called inside of these steps: a step's function may run in a thread."""
    token = _steps.set(steps)
    try:
        yield
    finally:
        _steps.reset(token)


class Waiting:
    """The steps and waits of one run."""

    def __init__(self, run: Run, host: Host) -> None:
        self._run = run
        self._host = host

    @property
    def journal(self) -> Journal:
        """The run's journal."""
        if self._run.journal is None:
            self._run.journal = Journal([])
        return self._run.journal

    async def step(
        self,
        name: str,
        function: Callable[..., Any],
        args: tuple[object, ...],
        *,
        inputs: object,
        on_change: OnChange,
        paid: bool,
        on_begun: OnBegun,
        salvage: Callable[[str], Any] | None,
    ) -> Any:
        """See RunningJob.step."""
        _check_begun(on_begun, salvage, paid=paid)
        if on_change not in ("raise", "rerun", "keep"):
            raise InvalidOption("on_change", on_change, "not 'raise', 'rerun' or 'keep'")
        name = _codec.checked_text(name, "name")
        outer = _steps.get()
        key = self.journal.next_key("step", name, inside=outer[-1].key if outer else "")
        hash_ = input_hash(args, inputs)
        entry = self.journal.find(key)
        if entry is not None:
            self.journal.read(key)
            if entry["hash"] == hash_ or on_change == "keep":
                return entry["result"]
            if on_change == "raise":
                raise StepChanged(name, stored=entry["hash"][:12], given=hash_[:12])
            key = f"{key}@{hash_[:12]}"
            rerun = self.journal.find(key)
            if rerun is not None:
                self.journal.read(key)
                return rerun["result"]
        await self._stop_if_parked()
        if self._run.gate is not None:
            await self._run.gate.stop_if_overspent()
        step = _Step(self._run, name, key)
        inside = _steps.set((*outer, step))
        try:
            if paid and (begun := self.journal.begun(key)) is not None:
                if on_begun == "fail":
                    raise PossiblyBilled(self._run.id, step=name)
                if salvage is not None:
                    function, args = salvage, (await partial_text(self._run, self._host, begun),)
            return await self._perform(key, hash_, function, args, paid=paid, name=name)
        finally:
            _steps.reset(inside)
            step.end()

    async def _perform(
        self,
        key: str,
        hash_: str,
        function: Callable[..., Any],
        args: tuple[object, ...],
        *,
        paid: bool,
        name: str,
    ) -> Any:
        if paid:
            note = {"run": self._run.claim.run, "seq": self._run.seq}
            await self._write(key, started=_codec.dumps(note, "started"))
        result = function(*args)
        if inspect.isawaitable(result):
            result = await result
        entry = {"hash": hash_, "result": result}
        try:
            text = _codec.dumps(entry, f"step {name!r}", limit=_ENTRY_BYTES)
        except InvalidOption as error:
            error.retryable = False  # it would be paid for again, and refused again
            raise
        await self._host.writer.drain(self._run)
        return self.journal.keep(key, await self._write(key, entry=text))["result"]

    async def sleep(self, duration: Seconds) -> None:
        """See RunningJob.sleep."""
        _refuse_inside_of_a_step("sleep")
        key = self.journal.next_key("sleep", "")
        wait = seconds(duration, "seconds")
        entry, left = await self._begin_wait(key, timeout=wait, name=None, reason="sleep")
        if entry is None:
            await self.park(Delayed("sleep", left or 0.0))

    async def children(
        self, ask: Callable[[], Awaitable[tuple[int, dict[str, ChildEnd]]]]
    ) -> dict[str, ChildEnd]:
        """Wait until all children have ended; later runs get the endings of the same ones.

        Args:
            ask: Answers how many have not ended, and the endings of the others by key.
        """
        _refuse_inside_of_a_step("wait_for_children")
        key = self.journal.next_key("children", "")
        entry = self.journal.find(key)
        pending, ends = await ask()
        if entry is not None:
            self.journal.read(key)
            names = ends if entry["keys"] is None else entry["keys"]
            return {name: ends[name] for name in names if name in ends}
        if pending > 0:
            await self._begin_wait(key, timeout=None, name=None, reason="children")
            await self.park(WaitingChildren())
        text = _codec.dumps({"keys": sorted(ends)}, "keys of children")
        if len(text) > _ENTRY_BYTES:  # thousands: they hardly come in several rounds
            text = '{"keys":null}'
        self.journal.keep(key, await self._write(key, entry=text))
        return ends

    async def signal(
        self, kind: str, name: str, *, timeout: float | None, reason: str, job_id: str
    ) -> Signal:
        """Wait for a signal; see RunningJob.wait_for_signal."""
        _refuse_inside_of_a_step("wait_for_signal" if kind == "signal" else "suspend")
        if name in self._run.open_waits:
            raise InvalidOption("name", name, "is being waited for already in this run")
        self._run.open_waits.add(name)
        key = self.journal.next_key(kind, name if kind == "signal" else "")
        entry, _ = await self._begin_wait(key, timeout=timeout, name=name, reason=reason)
        if entry is None:
            await self.park(SuspendedOutcome(timeout))
        self._run.open_waits.discard(name)
        if entry.get("timeout"):
            raise SignalTimeout(job_id, name=name)
        return signal_of(entry)

    async def _begin_wait(
        self, key: str, *, timeout: float | None, name: str | None, reason: str
    ) -> tuple[Any, float | None]:
        """The wait's entry if it is over, else None and the seconds left (None: no deadline)."""
        entry = self.journal.find(key)
        if entry is not None:
            self.journal.read(key)
            return entry, None
        if self._run.stop_reason is not None:
            await self._forever()
        # Of waits that begin together, all are on the server before the run ends: each of them may end the park.
        self._run.busy += 1
        try:
            return await self._ask_wait(key, timeout=timeout, name=name, reason=reason)
        finally:
            self._run.busy -= 1
            self._run.park_if_idle()

    async def _ask_wait(
        self, key: str, *, timeout: float | None, name: str | None, reason: str
    ) -> tuple[Any, float | None]:
        await self._host.writer.drain(self._run)
        args: dict[str, object] = {
            "id": self._run.id,
            "token": self._run.token,
            "key": key,
            "reason": _codec.checked_text(reason, "reason")[:1024],
        }
        if name is not None:
            args["name"] = name
        if timeout is not None:
            args["timeout_ms"] = to_ms(timeout)
        text, left = cast("tuple[bytes, int]", await self._call("job_wait", args))
        if text:
            return self.journal.keep(key, text.decode()), None
        self.journal.read(key)
        return None, left / 1000 if left >= 0 else None

    async def _write(self, key: str, **entry: str) -> str:
        args: dict[str, object] = {
            "id": self._run.id,
            "token": self._run.token,
            "key": key,
            **entry,
        }
        return (await self._call("job_step", args)).decode()

    async def _call(self, name: str, args: dict[str, object]) -> Any:
        try:
            return await self._host.client.call(name, self._host.root, args)
        except (LeaseLost, JobNotFound) as error:
            self._run.stop("lease_lost")
            raise LeaseLost(self._run.id, worker=self._host.name) from error

    async def park(self, outcome: Outcome) -> NoReturn:
        """End the run as soon as nothing is in flight; never returns.

        Cancelled by the handler itself before the run has ended, the park is withdrawn.
        """
        run, steps = self._run, _steps.get()
        run.parks.append(outcome)
        for step in steps:
            step.park()
        run.had_company = run.had_company or run.busy > 0
        run.park_if_idle()
        try:
            await self._forever()
        except asyncio.CancelledError:
            if run.stop_reason is None:
                run.parks.remove(outcome)
                for step in steps:
                    step.withdraw()
            raise

    async def _stop_if_parked(self) -> None:
        """What begins after a park was registered waits for the next run."""
        if self._run.parks:
            await self._forever()

    async def _forever(self) -> NoReturn:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._run.parked.append(future)
        await future
        raise AssertionError("a parked run does not go on")


def _refuse_inside_of_a_step(wait: str) -> None:
    """A finished step is not entered again: waits that it had passed would be taken for those that follow it."""
    steps = _steps.get()
    if steps:
        raise UnrecoverableError(
            f"job.{wait} inside of step {steps[-1].name!r}: wait before or after it"
        )


def _check_begun(on_begun: str, salvage: object, *, paid: bool) -> None:
    if on_begun not in ("retry", "fail", "salvage"):
        raise InvalidOption("on_begun", on_begun, "not 'retry', 'fail' or 'salvage'")
    if (on_begun == "salvage") != callable(salvage):
        raise InvalidOption("salvage", salvage, "a function, given with on_begun='salvage'")
    if on_begun != "retry" and not paid:
        raise InvalidOption(
            "on_begun", on_begun, "needs paid=True: only such steps note that they begin"
        )


__all__ = ["NO_INPUTS", "OnBegun", "OnChange", "Waiting"]
