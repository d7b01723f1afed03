"""Runs one handler to its end and says, as a value, what becomes of the job."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias, cast

from . import outcome as outcomes
from ._gate import Gate
from ._host import Host
from ._journal import Journal
from ._run import Run
from ._threads import RunStopped, run_in_thread
from .context import RunningJob, _current  # pyright: ignore[reportPrivateUsage] the one place that sets it
from .errors import (
    ConnectionLost,
    GlideMQError,
    InvalidOption,
    JobTimeout,
    ParkIgnored,
    UnknownJobName,
)
from .outcome import Outcome
from .retry import BackoffFunction
from .throttle import limits_of

logger = logging.getLogger(__name__)

_RECONNECT: Final = 1.0

Handler: TypeAlias = Callable[[Any], Awaitable[object]] | Callable[[Any], object]
Handlers: TypeAlias = Handler | Mapping[str, Handler]
Found: TypeAlias = tuple[Callable[[Any], Any], bool, Sequence[Mapping[str, object]]]

_STOPPED: Final[dict[str, Outcome]] = {
    "lease_lost": outcomes.Dropped(),
    "cancelled": outcomes.Cancelled(),
    "shutdown": outcomes.Delayed("shutdown"),
}


class Executor:
    """Turns claims into outcomes: finds the handler, bounds its time, catches its ending."""

    def __init__(
        self,
        handlers: Handlers,
        backoffs: Mapping[str, BackoffFunction],
        host: Host,
        max_retry_after: float,
    ) -> None:
        self._handlers = check_handlers(handlers)
        self._backoffs = backoffs
        self._host = host
        self._max_retry_after = max_retry_after

    async def execute(self, run: Run) -> Outcome:
        """Run the handler; answers the outcome whatever happens."""
        job = RunningJob(run, self._host)
        _current.set(job)
        timers = _Timers(run, self._host) if run.options else None
        try:
            value = await self._call_handler(run, job)
        except (asyncio.CancelledError, RunStopped) as error:
            return self._stopped(run) or self._failed(run, error)
        except (KeyboardInterrupt, GeneratorExit):
            raise  # the process or the loop is to end
        except BaseException as error:  # noqa: BLE001 any error of a handler is an outcome, sys.exit() too: it would take all the others' jobs along, and then come again
            return self._raised(run, error)
        finally:
            run.is_in_handler = False
            if timers is not None:
                timers.close()
            await job.exit()
            if run.gate is not None:
                await _close(run.gate)
            run.let_go()
        if run.parks and run.stop_reason in (None, "parked"):
            return self._raised(run, None)
        if run.stop_reason is not None and run.stop_reason != "shutdown":
            return self._stopped(run) or outcomes.of_result(value, run.claim.attempt)
        return outcomes.of_result(value, run.claim.attempt)

    async def _call_handler(self, run: Run, job: RunningJob) -> object:
        if run.claim.journal and run.journal is None:
            await self._load_journal(run)
        handler, is_async, run.limits = self._find(run)
        if run.stop_reason is not None:
            raise RunStopped  # before it began
        run.is_in_handler = True
        if "budgets" in run.options or "limits" in run.options or run.limits or self._host.limits:
            run.gate = Gate(run, self._host)
            await run.gate.start()
        return await (handler(job) if is_async else run_in_thread(handler, job))

    def _raised(self, run: Run, error: BaseException | None) -> Outcome:
        """The outcome of a handler that raised, or went on (None) although it had asked to be parked."""
        if isinstance(error, ConnectionLost) and not run.is_in_handler:
            return outcomes.Delayed(
                "connection", _RECONNECT
            )  # it has not begun: no attempt is used
        # What ran beside a wait may fail, and a TaskGroup puts that before its own cancellation.
        if run.parks and run.stop_reason in (None, "parked") and (not error or not run.had_company):
            did = "returned" if error is None else "raised"
            ignored = ParkIgnored(f"the handler {did} although it had asked to be parked")
            ignored.__cause__ = error
            return self._failed(run, ignored)
        assert error is not None
        if run.stop_reason == "parked":
            return self._failed(run, error)
        return self._stopped(run) or self._failed(run, error)

    async def _load_journal(self, run: Run) -> None:
        flat = await self._host.client.call("job_journal", self._host.root, {"id": run.id})
        run.journal = Journal(flat)

    def _find(self, run: Run) -> Found:
        found = self._handlers.get(run.claim.name) or self._handlers.get("")
        if found is None:
            raise UnknownJobName(run.claim.name, known=sorted(self._handlers))
        return found

    def _stopped(self, run: Run) -> Outcome | None:
        """The outcome of a run that was stopped; None if nobody had stopped it."""
        reason = run.stop_reason
        if reason == "parked":
            return run.park
        if reason == "timeout" or reason == "idle_timeout":
            limit = float(run.options[reason])
            return self._failed(run, JobTimeout(run.id, limit=limit, kind=reason))
        return _STOPPED.get(reason or "")

    def _failed(self, run: Run, error: BaseException) -> Outcome:
        outcome = outcomes.of_error(
            error,
            attempt=run.claim.attempt,
            options=run.options,
            backoffs=self._backoffs,
            fallback_index=run.claim.fallback_index,
            max_retry_after=self._max_retry_after,
        )
        if isinstance(outcome, outcomes.Failed):
            # Not its message, which may hold what was asked or answered.
            logger.warning(
                "job %s (%s) failed (%s, %s): see `glidemq get %s %s`",
                run.id,
                run.claim.name,
                outcome.reason,
                type(error).__name__,
                self._host.queue,
                run.id,
            )
        return outcome


async def _close(gate: Gate) -> None:
    """Let go of what a run holds in its ledger; if that fails, its reservations run out by themselves."""
    try:
        await gate.close()
    except Exception as error:  # a job has to end, whatever is wrong with its money
        logger.warning(
            "the ledger could not be told of a run's end: %s",
            error,
            exc_info=not isinstance(error, GlideMQError),
        )


class _Timers:
    """The time limits of one run. Only jobs that have one pay for it."""

    def __init__(self, run: Run, host: Host) -> None:
        self._run = run
        self._host = host
        self._loop = asyncio.get_running_loop()
        self._handles: list[asyncio.TimerHandle] = []
        if "timeout" in run.options:
            self._handles.append(self._loop.call_later(run.options["timeout"], run.stop, "timeout"))
        if "idle_timeout" in run.options:
            self._watch_idle(run.options["idle_timeout"])

    def close(self) -> None:
        for handle in self._handles:
            handle.cancel()

    def _watch_idle(self, wait: float) -> None:
        self._handles.append(self._loop.call_later(wait, self._check_idle))

    def _check_idle(self) -> None:
        limit = self._run.options["idle_timeout"]
        silent = self._host.now() - max(self._run.touched_at, self._run.started_at)
        if silent >= limit:
            self._run.stop("idle_timeout")
        else:
            self._handles.pop()
            self._watch_idle(limit - silent)


def check_handlers(handlers: Handlers) -> dict[str, Found]:
    """Every handler with whether it is async, and its limiters; the one handler for all names is kept under "".

    Raises:
        InvalidOption: There is none, or one can't be called.
    """
    if isinstance(handlers, Mapping):
        named = cast("Mapping[str, Handler]", handlers)
        if not named:
            raise InvalidOption("handler", named, "an empty mapping")
        return {name: _one(handler, f"handler[{name!r}]") for name, handler in named.items()}
    return {"": _one(handlers, "handler")}


def _one(handler: object, field: str) -> Found:
    if not callable(handler):
        raise InvalidOption(field, handler, "not callable")
    call = getattr(handler, "__call__", None)  # noqa: B004 an object with an async __call__ is an async handler
    is_async = inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(call)
    return handler, is_async, limits_of(handler)
