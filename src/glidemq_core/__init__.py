"""glidemq_core: a job queue on Valkey whose unit of work is a model-shaped job."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .errors import (
    Backlogged,
    BudgetExceeded,
    ConnectionLost,
    CostUnknown,
    EmbeddedUnavailable,
    GlideMQError,
    InvalidOption,
    JobCancelled,
    JobFailed,
    JobNotFound,
    JobTimeout,
    LeaseLost,
    LibraryError,
    OutOfMemory,
    ParkIgnored,
    PayloadTooLarge,
    PossiblyBilled,
    ServerError,
    ServerUnsuitable,
    SignalMismatch,
    SignalTimeout,
    StepChanged,
    StreamGap,
    Throttled,
    UnknownJobName,
    UnrecoverableError,
    WrongState,
)
from .job import Job, JobError, JobUsage
from .options import Keep, NewJob, Parent
from .retry import Backoff

if TYPE_CHECKING:
    from ._reading import Event, WorkerState
    from .budget import Budget, BudgetState
    from .context import RunningJob, current_job
    from .flow import ChildEnd, FlowHandle, FlowJob, FlowProducer
    from .ledger import Ledger
    from .queue import JobHandle, Queue
    from .signals import Signal, Suspended
    from .stream import Chunk, JobStream, kept_text
    from .throttle import Breaker, Throttle, limited
    from .usage import UsageSummary
    from .worker import Worker

__all__ = [
    "Backlogged",
    "Backoff",
    "Breaker",
    "Budget",
    "BudgetExceeded",
    "BudgetState",
    "ChildEnd",
    "Chunk",
    "ConnectionLost",
    "CostUnknown",
    "EmbeddedUnavailable",
    "Event",
    "FlowHandle",
    "FlowJob",
    "FlowProducer",
    "GlideMQError",
    "InvalidOption",
    "Job",
    "JobCancelled",
    "JobError",
    "JobFailed",
    "JobHandle",
    "JobNotFound",
    "JobStream",
    "JobTimeout",
    "JobUsage",
    "Keep",
    "LeaseLost",
    "Ledger",
    "LibraryError",
    "NewJob",
    "OutOfMemory",
    "Parent",
    "ParkIgnored",
    "PayloadTooLarge",
    "PossiblyBilled",
    "Queue",
    "RunningJob",
    "ServerError",
    "ServerUnsuitable",
    "Signal",
    "SignalMismatch",
    "SignalTimeout",
    "StepChanged",
    "StreamGap",
    "Suspended",
    "Throttle",
    "Throttled",
    "UnknownJobName",
    "UnrecoverableError",
    "UsageSummary",
    "Worker",
    "WorkerState",
    "WrongState",
    "current_job",
    "kept_text",
    "limited",
]

# Modules that reach for the server's client are loaded at first use: importing this package stays quick.
_LAZY = {
    "Breaker": "throttle",
    "Budget": "budget",
    "BudgetState": "budget",
    "ChildEnd": "flow",
    "Chunk": "stream",
    "Event": "_reading",
    "FlowHandle": "flow",
    "FlowJob": "flow",
    "FlowProducer": "flow",
    "JobHandle": "queue",
    "JobStream": "stream",
    "Ledger": "ledger",
    "Queue": "queue",
    "RunningJob": "context",
    "Signal": "signals",
    "Suspended": "signals",
    "Throttle": "throttle",
    "UsageSummary": "usage",
    "Worker": "worker",
    "WorkerState": "_reading",
    "current_job": "context",
    "kept_text": "stream",
    "limited": "throttle",
}


def __getattr__(name: str) -> Any:
    module = _LAZY.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{module}", __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
