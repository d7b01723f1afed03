"""glidemq_core: a job queue on Valkey whose unit of work is a model-shaped job."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .errors import (
    Backlogged,
    BudgetExceeded,
    ConnectionLost,
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
    ServerError,
    ServerUnsuitable,
    SignalTimeout,
    StepChanged,
    StreamGap,
    Throttled,
    UnrecoverableError,
    WrongState,
)
from .job import Job, JobError, JobUsage
from .options import Keep, NewJob
from .retry import Backoff

if TYPE_CHECKING:
    from .context import RunningJob, current_job
    from .flow import ChildEnd, FlowHandle, FlowJob, FlowProducer
    from .queue import Event, JobHandle, Queue
    from .signals import Signal, Suspended
    from .stream import Chunk, JobStream, kept_text
    from .usage import UsageSummary
    from .worker import Worker

__all__ = [
    "Breaker",
    "Throttle",
    "Ledger",
    "BudgetState",
    "Budget",
    "Backlogged",
    "Backoff",
    "BudgetExceeded",
    "ChildEnd",
    "Chunk",
    "ConnectionLost",
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
    "LibraryError",
    "NewJob",
    "OutOfMemory",
    "ParkIgnored",
    "PayloadTooLarge",
    "Queue",
    "RunningJob",
    "ServerError",
    "ServerUnsuitable",
    "Signal",
    "SignalTimeout",
    "StepChanged",
    "StreamGap",
    "Suspended",
    "Throttled",
    "UnrecoverableError",
    "UsageSummary",
    "Worker",
    "WrongState",
    "current_job",
    "kept_text",
]

# Modules that reach for the server's client are loaded at first use: importing this package stays quick.
_LAZY = {
    "Breaker": "throttle",
    "Throttle": "throttle",
    "Ledger": "ledger",
    "BudgetState": "budget",
    "Budget": "budget",
    "ChildEnd": "flow",
    "FlowHandle": "flow",
    "FlowJob": "flow",
    "FlowProducer": "flow",
    "Signal": "signals",
    "Suspended": "signals",
    "Chunk": "stream",
    "Event": "queue",
    "JobHandle": "queue",
    "JobStream": "stream",
    "Queue": "queue",
    "RunningJob": "context",
    "UsageSummary": "usage",
    "Worker": "worker",
    "current_job": "context",
    "kept_text": "stream",
}


def __getattr__(name: str) -> Any:
    module = _LAZY.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{module}", __name__), name)
