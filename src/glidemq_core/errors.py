"""Every error this package raises.

GlideMQError
├── InvalidOption            a value was refused before anything was written (also a ValueError)
│   └── PayloadTooLarge      a payload is over its size limit
├── ConnectionLost           the server could not be reached, or a reply never came
│   └── ServerUnsuitable     the server is reachable but must not be used (evicts keys, too old)
├── EmbeddedUnavailable      there is no embedded server for this platform
├── ServerError              the server refused a call for a reason of its own
│   ├── OutOfMemory          the server is at `maxmemory`: nothing was added
│   └── LibraryError         the server's function library is missing, too new or broken
├── JobNotFound              no job of that id (any more)
├── WrongState               the job's state does not allow this call
├── JobFailed                result(): the job ended as failed
│   └── JobCancelled         result(): the job ended as cancelled
├── LeaseLost                this run is no longer the job's current run
├── UnrecoverableError       raise it in a handler: fail now, do not retry
│   ├── ParkIgnored          a handler went on after it had asked to be parked
│   ├── PossiblyBilled       a paid step was interrupted, and is not to be repeated
│   ├── SignalMismatch       a signal's data do not fit the type that was waited for
│   ├── StepChanged          a remembered step was called with other inputs
│   └── UnknownJobName       the worker has no handler for jobs of this name
├── JobTimeout               the run was longer than `timeout`, or silent for `idle_timeout`
├── SignalTimeout            a wait ended without its signal
├── BudgetExceeded           a budget leaves less than was asked
├── CostUnknown              a budget caps money, and a call does not say what it will cost
├── Throttled                a limiter has no room now
├── Backlogged               too much cross-slot work is waiting to be relayed
└── StreamGap                the chunks after the given id have been trimmed
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Literal, TypeAlias

Amount: TypeAlias = int | Decimal


class GlideMQError(Exception):
    """The base of every error of this package. All of them can be copied and pickled.

    Attributes:
        retryable: False: in a handler, another attempt is pointless; the job fails at once. An error that also has
            `fallback = True` is tried with the job's next fallback, if it has one.
    """

    retryable: bool = True

    def __reduce__(self) -> tuple[object, ...]:
        # By default the message would be given to __init__ as if it were its first argument.
        return _rebuilt, (type(self), self.args, self.__dict__)


def _rebuilt(
    kind: type[GlideMQError], args: tuple[object, ...], facts: dict[str, object]
) -> GlideMQError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(facts)
    return error


class InvalidOption(GlideMQError, ValueError):
    """A value was refused before anything was written.

    Attributes:
        field: The option's name, dotted or indexed where it is nested ("jobs[3].delay").
        value: The value as it was given.
    """

    def __init__(self, field: str, value: object, reason: str) -> None:
        self.field = field
        self.value = value
        self.reason = reason
        super().__init__(f"{field}={_short(value)}: {reason}")


class PayloadTooLarge(InvalidOption):
    """A payload is over its size limit; nothing was written.

    Attributes:
        size: Its size in bytes, serialised.
        limit: The largest size allowed, in bytes.
    """

    def __init__(self, field: str, *, size: int, limit: int) -> None:
        self.size = size
        self.limit = limit
        super().__init__(field, f"<{size} bytes>", f"larger than the limit of {limit} bytes")


class ConnectionLost(GlideMQError):
    """The server could not be reached, or the reply of a call never came.

    Attributes:
        outcome: "unknown" if the server may have applied the call, "not_sent" if it can't have.
        id: The id with which the call can be repeated safely, where it has one.
    """

    def __init__(
        self,
        message: str,
        *,
        outcome: Literal["unknown", "not_sent"] = "not_sent",
        id: str | None = None,
    ) -> None:
        self.outcome = outcome
        self.id = id
        super().__init__(message)


class ServerUnsuitable(ConnectionLost):
    """The server answers but must not be used; the message says what to change on it."""


class EmbeddedUnavailable(GlideMQError):
    """There is no embedded server for this platform; the message says what to do instead."""


class ServerError(GlideMQError):
    """The server refused a call.

    Attributes:
        code: The first word of the server's error, for example "WRONGTYPE".
    """

    def __init__(self, message: str, *, code: str = "ERR") -> None:
        self.code = code
        super().__init__(message)


class OutOfMemory(ServerError):
    """The server is at `maxmemory`; the call wrote nothing. Running jobs still finish."""


class LibraryError(ServerError):
    """The server's function library is missing, newer than this client can use, or broken."""


class JobNotFound(GlideMQError):
    """No job of that id in this queue: it was never added, or has been removed."""

    def __init__(self, job_id: str, *, queue: str | None = None) -> None:
        self.job_id = job_id
        self.queue = queue
        where = f" in queue {queue!r}" if queue else ""
        super().__init__(f"job {job_id!r} is not known{where} (never added, or removed since)")


class WrongState(GlideMQError):
    """The job's state does not allow this call; nothing was changed."""

    def __init__(self, job_id: str, *, state: str, wanted: str) -> None:
        self.job_id = job_id
        self.state = state
        self.wanted = wanted
        super().__init__(f"job {job_id!r} is {state}; this needs a job that is {wanted}")


class JobFailed(GlideMQError):
    """The job ended as failed.

    Attributes:
        job_id: The job.
        reason: Why it is final: "error", "unrecoverable", "timeout", "stalled", "expired", "budget", ...
        error_class, error_message, traceback: Of the last attempt, where there was one.
        attempt: The number of the last attempt, from 1.
    """

    def __init__(
        self,
        job_id: str,
        *,
        reason: str,
        error_class: str = "",
        error_message: str = "",
        traceback: str = "",
        attempt: int = 0,
    ) -> None:
        self.job_id = job_id
        self.reason = reason
        self.error_class = error_class
        self.error_message = error_message
        self.traceback = traceback
        self.attempt = attempt
        detail = f": {error_class}: {error_message}" if error_class else ""
        super().__init__(f"job {job_id!r} failed ({reason}, attempt {attempt}){detail}")


class JobCancelled(JobFailed):
    """The job was cancelled."""


class LeaseLost(GlideMQError):
    """This run is no longer the job's current run: it was reclaimed, cancelled or ended elsewhere.

    Nothing this run writes is accepted any more, except the usage it reports.
    """

    def __init__(self, job_id: str, *, worker: str = "") -> None:
        self.job_id = job_id
        self.worker = worker
        super().__init__(
            f"job {job_id!r} is no longer leased to worker {worker!r}; its writes are dropped"
        )


class UnrecoverableError(GlideMQError):
    """Raise it in a handler to fail the job at once, whatever attempts are left."""

    retryable = False


class ParkIgnored(UnrecoverableError):
    """The handler returned or raised although it had asked to be parked (it caught the cancellation)."""


class SignalMismatch(UnrecoverableError):
    """A signal's data do not fit the type that the job waits for.

    Attributes:
        job_id: The job. name, signal_id: The signal, which was taken.
        field: What does not fit ("data.amount"); reason: why.
    """

    def __init__(self, job_id: str, *, name: str, signal_id: str, field: str, reason: str) -> None:
        self.job_id = job_id
        self.name = name
        self.signal_id = signal_id
        self.field = field
        self.reason = reason
        super().__init__(
            f"job {job_id!r}: signal {name!r} ({signal_id}) does not fit, {field}: {reason}"
        )


class StepChanged(UnrecoverableError):
    """A remembered step was called with other inputs than the ones its stored result came from."""

    def __init__(self, step: str, *, stored: str, given: str) -> None:
        self.step = step
        self.stored = stored
        self.given = given
        super().__init__(
            f"step {step!r} is stored for inputs {stored} but was called with {given}; "
            "give it another name, or on_change='rerun' or 'keep'"
        )


class PossiblyBilled(UnrecoverableError):
    """A paid step began in an earlier run and never ended, and is not to be repeated (`on_begun="fail"`)."""

    def __init__(self, job_id: str, *, step: str) -> None:
        self.job_id = job_id
        self.step = step
        super().__init__(
            f"step {step!r} of job {job_id!r} began in a run that was lost, and may have been billed: "
            "look at the provider's log, then retry the job"
        )


class UnknownJobName(UnrecoverableError):
    """The worker has no handler for jobs of this name.

    Attributes:
        name: The job's name.
        known: The names that the worker has handlers for.
    """

    def __init__(self, name: str, *, known: Sequence[str]) -> None:
        self.name = name
        self.known = tuple(known)
        super().__init__(
            f"no handler for jobs named {name!r}; this worker has {', '.join(self.known)}"
        )


class JobTimeout(GlideMQError):
    """The run was longer than the job's `timeout`, or silent for longer than its `idle_timeout`."""

    def __init__(
        self, job_id: str, *, limit: float, kind: Literal["timeout", "idle_timeout"] = "timeout"
    ) -> None:
        self.job_id = job_id
        self.limit = limit
        self.kind = kind
        super().__init__(f"job {job_id!r} passed its {kind} of {limit:g} s")


class SignalTimeout(GlideMQError):
    """A wait for a signal reached its deadline."""

    def __init__(self, job_id: str, *, name: str) -> None:
        self.job_id = job_id
        self.name = name
        super().__init__(f"job {job_id!r} waited for signal {name!r} until its deadline")


class BudgetExceeded(GlideMQError):
    """A budget leaves less than was asked; nothing was reserved.

    Attributes:
        budget: The budget's id.
        cap: Which of its caps, for example "total_tokens" or "cost.total".
        limit, used, reserved, asked: In the cap's unit: (weighted) tokens as int, or money as Decimal.
    """

    def __init__(
        self, budget: str, *, cap: str, limit: Amount, used: Amount, reserved: Amount, asked: Amount
    ) -> None:
        self.budget = budget
        self.cap = cap
        self.limit = limit
        self.used = used
        self.reserved = reserved
        self.asked = asked
        super().__init__(
            f"budget {budget!r}: {cap} of {limit:f} leaves {max(limit - used - reserved, limit * 0):f}, "
            f"asked for {asked:f} (used {used:f}, reserved {reserved:f})"
        )


class CostUnknown(GlideMQError):
    """A budget caps money, and what a call costs is not known; nothing was reserved.

    Attributes:
        budget: The budget's id; None where no budget asks, but a policy of the caller's own.
        cap: The cap that could not hold it, for example "cost.total".
    """

    retryable = False
    budget: str | None
    cap: str | None

    def __init__(self, budget: str, *, cap: str) -> None:
        self.budget = budget
        self.cap = cap
        super().__init__(
            f"budget {budget!r} caps {cap}, and the cost of the call is not known: "
            "give costs={'total': ...} (0 for a call that costs nothing)"
        )


class Throttled(GlideMQError):
    """A limiter has no room now.

    Attributes:
        limiter: Its name.
        retry_after: Seconds until it would fit.
    """

    def __init__(self, limiter: str, *, retry_after: float) -> None:
        self.limiter = limiter
        self.retry_after = retry_after
        super().__init__(f"limiter {limiter!r} has room again in {retry_after:.3f} s")


class Backlogged(GlideMQError):
    """Too much cross-slot work is waiting to be relayed; run more workers and try again."""


class StreamGap(GlideMQError):
    """The chunks after the given id have been trimmed: the text can't be continued from there.

    Attributes:
        after: The id that was asked for.
        first: The oldest id that is still there.
    """

    def __init__(self, job_id: str, *, after: str, first: str) -> None:
        self.job_id = job_id
        self.after = after
        self.first = first
        super().__init__(
            f"job {job_id!r}: chunks after {after!r} have been trimmed; the oldest kept is {first!r}"
        )


def _short(value: object, limit: int = 80) -> str:
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 too deep, too large, or a user's class: it is named all the same
        text = f"<{type(value).__name__}>"
    return text if len(text) <= limit else text[: limit - 3] + "..."
