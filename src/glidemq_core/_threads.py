"""Sync handlers: each run has a daemon thread of its own, and a job whose methods block.

A thread can't be cancelled: a stop is raised at the handler's next call of one of the job's methods.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import contextvars
import inspect
import threading
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterable, Mapping
from queue import SimpleQueue
from typing import Any, Final, TypeVar

from ._allowance import Allowance, Grant
from ._bridge import mailbox
from ._run import in_thread
from ._waiting import inside_of, steps_here
from .context import RunningJob, _current  # pyright: ignore[reportPrivateUsage] a thread's job is the blocking one
from .errors import GlideMQError, LeaseLost, UnrecoverableError

T = TypeVar("T")

# A future can't hold the first; the others would end the worker, while in a thread they end the thread.
_NOT_CARRIED: Final = (StopIteration, SystemExit, KeyboardInterrupt, GeneratorExit)
_POSTS: Final = (
    64  # calls to write_chunks until one waits for the loop, so that it can't be left far behind
)
_ASYNC_ONLY: Final = frozenset(
    {"sleep", "wait_for_signal", "suspend", "wait_for_children", "move_to_delayed"}
)


class RunStopped(BaseException):
    """Raised in a thread handler at its next `job.*` call once its run was stopped. Not an Exception: it unwinds."""


class ThreadJob:
    """The running job for a sync handler: the methods of RunningJob, blocking."""

    def __init__(self, job: RunningJob, loop: asyncio.AbstractEventLoop) -> None:
        self._job = job
        self._loop = loop
        self._mailbox = mailbox(loop)
        self._posted = 0
        self._refused: GlideMQError | None = None
        self._stops: list[Callable[[], object]] = []

    def __getattr__(self, name: str) -> Any:
        """The facts of the job: id, name, data, attempt, run, cancelled, ...; and its other methods, blocking.

        Raises:
            UnrecoverableError: Waits are for async handlers: a thread can't be ended to be parked.
        """
        if name in _ASYNC_ONLY:
            raise UnrecoverableError(f"job.{name} needs an async handler: a thread can't be parked")
        return _blocking(getattr(self._job, name), self._do)

    def stream_chunk(self, type: str, content: str = "", **fields: object) -> None:
        """See RunningJob.stream_chunk."""
        self._do(self._job.stream_chunk(type, content, **fields))

    def write_chunks(self, chunks: Iterable[tuple[str, str, Mapping[str, object]]]) -> None:
        """See RunningJob.write_chunks. Most calls do not wait for the event loop, so that an error is the next one's."""
        self.check_stopped()
        if self._refused is not None:
            raise self._refused
        self._mailbox.post(self._write, list(chunks))
        self._posted += 1
        if self._posted % _POSTS == 0:
            self._do(self._job.room())

    def write_last_chunks(self, chunks: Iterable[tuple[str, str, Mapping[str, object]]]) -> None:
        """Append what ends a part of the stream, although the run may have been stopped."""
        self._mailbox.post(self._write, list(chunks))

    def _write(self, chunks: list[tuple[str, str, Mapping[str, object]]]) -> None:
        try:
            self._job.write_chunks(chunks)
        except GlideMQError as error:
            self._refused = error

    def progress(self, value: object) -> None:
        """See RunningJob.progress."""
        self._do(self._job.progress(value))

    def log(self, text: str) -> None:
        """See RunningJob.log."""
        self._do(self._job.log(text))

    def update_data(self, data: object) -> None:
        """See RunningJob.update_data."""
        self._do(self._job.update_data(data))

    def report_usage(self, *, model: str, tokens: Mapping[str, int], **more: Any) -> bool:
        """See RunningJob.report_usage."""
        return self._do(self._job.report_usage(model=model, tokens=tokens, **more))

    def reserve(self, call: str, *, tokens: Mapping[str, int], **more: Any) -> None:
        """See RunningJob.reserve. A thread can't be parked: what would park the job raises instead."""
        self._do(self._job.reserve(call, tokens=tokens, **more))

    def extend(self, call: str, *, tokens: Mapping[str, int], **more: Any) -> None:
        """See RunningJob.extend."""
        self._do(self._job.extend(call, tokens=tokens, **more))

    def release(self, call: str, **more: Any) -> None:
        """See RunningJob.release."""
        self._finish(self._job.release(call, **more))

    def step(self, name: str, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """See RunningJob.step. `function` is called in this thread."""
        calls: SimpleQueue[tuple[Callable[..., Any], Any, Any, asyncio.Future[Any]] | None]
        calls = SimpleQueue()

        def in_this_thread(chosen: Callable[..., Any]) -> Callable[..., Awaitable[Any]]:
            async def call(*given: Any) -> Any:
                future: asyncio.Future[Any] = self._loop.create_future()
                calls.put((chosen, given, steps_here(), future))
                return await future

            return call

        if options.get("salvage") is not None:
            options["salvage"] = in_this_thread(options["salvage"])
        self.check_stopped()
        work = self._job.step(name, in_this_thread(function), *args, **options)
        done = asyncio.run_coroutine_threadsafe(work, self._loop)
        done.add_done_callback(lambda _: calls.put(None))
        while (call := calls.get()) is not None:
            chosen, given, steps, future = call
            with inside_of(steps):
                outcome = _outcome_of(chosen, *given)
            self._loop.call_soon_threadsafe(_deliver, future, *outcome)
        return self._answer(done)

    @contextlib.contextmanager
    def llm_call(self, model: str, **options: Any) -> Generator[Any]:
        """See RunningJob.llm_call."""
        manager = self._job.llm_call(model, **options)
        call = self._do(manager.__aenter__())
        try:
            yield call
        except BaseException as error:
            self._finish(manager.__aexit__(type(error), error, error.__traceback__))
            raise
        self._finish(manager.__aexit__(None, None, None))

    def book(self, *, model: str, tokens: Mapping[str, int], **more: Any) -> bool:
        """Report usage although the run may have been stopped: that money is gone."""
        return self._finish(self._job.report_usage(model=model, tokens=tokens, **more))

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        try:
            self.check_stopped()
        except RunStopped:
            work.close()
            raise
        return self._answer(asyncio.run_coroutine_threadsafe(work, self._loop))

    def _finish(self, work: Coroutine[Any, Any, T]) -> T:
        """What has to be done although the run may have been stopped."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def check_stopped(self) -> None:
        """Raise RunStopped if the run was stopped, as the other methods do."""
        if self._job.cancelled:
            raise RunStopped

    def on_stop(self, callback: Callable[[], object]) -> None:
        """Have `callback` called on the event loop when the run is stopped: to end what its thread waits for."""
        self._stops.append(callback)

    def stopped(self) -> None:
        """Run the callbacks of `on_stop`, once. `run_in_thread` does this."""
        while self._stops:
            self._stops.pop()()

    def _answer(self, done: concurrent.futures.Future[T]) -> T:
        try:
            return done.result()
        except LeaseLost:
            raise RunStopped from None


class _Blocking:
    """An object whose methods are coroutines, for a thread: they block."""

    def __init__(self, inner: object, do: Callable[[Coroutine[Any, Any, Any]], Any]) -> None:
        self._inner = inner
        self._do = do

    def __getattr__(self, name: str) -> Any:
        return _blocking(getattr(self._inner, name), self._do)


def _blocking(found: Any, do: Callable[[Coroutine[Any, Any, Any]], Any]) -> Any:
    """A member of the job as a thread can use it."""
    if isinstance(found, Allowance | Grant):
        return _Blocking(found, do)
    if not inspect.iscoroutinefunction(found):
        return found

    def blocking(*args: Any, **more: Any) -> Any:
        return _blocking(do(found(*args, **more)), do)

    return blocking


async def run_in_thread(function: Callable[[Any], object], job: RunningJob) -> object:
    """Run a sync handler in a new daemon thread; answers what it returns or raises what it raises.

    Cancelling this does not end the thread: it keeps waiting until the thread has ended.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[object] = loop.create_future()
    context = contextvars.copy_context()
    blocking = ThreadJob(job, loop)
    context.run(_current.set, blocking)
    context.run(in_thread.set, True)

    def body() -> None:
        loop.call_soon_threadsafe(_deliver, done, *_outcome_of(context.run, function, blocking))

    threading.Thread(target=body, name=f"glidemq-{job.id}", daemon=True).start()
    while True:
        try:
            return await asyncio.shield(done)
        except asyncio.CancelledError:
            if done.done():
                raise
            if job.cancelled:
                blocking.stopped()


def _outcome_of(function: Callable[..., Any], *args: Any) -> tuple[Any, BaseException | None]:
    """What a function returns, or what it raises."""
    try:
        return function(*args), None
    except BaseException as caught:  # noqa: BLE001 carried over to the loop, whatever it is
        return None, RuntimeError(repr(caught)) if isinstance(caught, _NOT_CARRIED) else caught


def _deliver(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if not future.done():
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)
