"""Points at which a worker process can be made to die, for the tests of what a crash leaves behind.

`GLIDEMQ_FAILPOINT=name:count` kills this process (SIGKILL) when the point of that name is reached for the `count`-th time.
The variable is read once, at import; without it `around` answers the function it was given: nothing is added to a call.
"""

from __future__ import annotations

import functools
import inspect
import os
import signal
import threading
from collections.abc import Callable
from typing import Any, Final, TypeVar, cast

_SIDES: Final = ("before", "after")
_CALLS: Final = ("turn", "stream_append", "job_beat", "job_update", "job_usage")
_PAYING: Final = ("job_update", "ledger_reserve", "job_usage", "ledger_settle", "turn")
POINTS: Final = tuple(f"{call}.{side}" for call in _CALLS for side in _SIDES)
"""Before a call of that name is sent, and after its reply has come: once per call, whatever it repeats inside."""
MONEY_POINTS: Final = tuple(f"{call}.{side}" for call in _PAYING for side in _SIDES)
"""Those that a model call passes."""

F = TypeVar("F", bound=Callable[..., Any])

_lock = threading.Lock()
_armed, _, _count = os.environ.get("GLIDEMQ_FAILPOINT", "").partition(":")
_left = int(_count or 1)


def hit(name: str) -> None:
    """The point `name` is reached."""
    global _left
    if name != _armed:
        return
    with _lock:  # the heartbeat calls from its own thread
        _left -= 1
        if _left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


def around(function: F) -> F:
    """Put points before and after a client's method `call(self, name, ...)`, if a point is armed."""
    if not _armed:
        return function
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def call_async(self: Any, name: str, *args: Any, **more: Any) -> Any:
            hit(f"{name}.before")
            reply = await function(self, name, *args, **more)
            hit(f"{name}.after")
            return reply

        return cast("F", call_async)

    @functools.wraps(function)
    def call(self: Any, name: str, *args: Any, **more: Any) -> Any:
        hit(f"{name}.before")
        reply = function(self, name, *args, **more)
        hit(f"{name}.after")
        return reply

    return cast("F", call)
