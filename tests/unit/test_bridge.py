"""Crossing from one event loop to another."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from glidemq_core._bridge import Mailbox, OwnerGone, cross


@pytest.fixture
def there() -> Iterator[asyncio.AbstractEventLoop]:
    """A loop that runs on another thread."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    yield loop
    if not loop.is_closed():
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


class CountingLoop:
    """Counts how often it is woken, and does nothing."""

    def __init__(self) -> None:
        self.woken = 0

    def call_soon_threadsafe(self, _function: object) -> None:
        self.woken += 1


def test_hundred_items_wake_the_loop_once():
    loop = CountingLoop()
    box = Mailbox(loop)  # pyright: ignore[reportArgumentType] all of a loop that it uses

    for _ in range(100):
        box.post(print)

    assert loop.woken == 1


async def test_items_are_called_in_order_and_those_posted_meanwhile_too():
    box, seen, end = Mailbox(asyncio.get_running_loop()), [], asyncio.Event()

    def first() -> None:
        box.post(seen.append, "third")
        box.post(end.set)
        seen.append("first")

    box.post(first)
    box.post(seen.append, "second")
    await end.wait()

    assert seen == ["first", "second", "third"]


async def test_item_that_raises_does_not_lose_those_behind_it():
    loop, end, errors = asyncio.get_running_loop(), asyncio.Event(), []
    loop.set_exception_handler(lambda _, context: errors.append(context["exception"]))
    box = Mailbox(loop)

    box.post(lambda: 1 / 0)
    box.post(end.set)
    async with asyncio.timeout(5):
        await end.wait()

    assert [type(error) for error in errors] == [ZeroDivisionError]


async def test_result_and_error_come_back(there):
    async def divide(by: int) -> tuple[float, asyncio.AbstractEventLoop]:
        return 6 / by, asyncio.get_running_loop()

    assert await cross(there, lambda: divide(2)) == (3.0, there)
    with pytest.raises(ZeroDivisionError):
        await cross(there, lambda: divide(0))


async def test_cancelling_here_cancels_there(there):
    begun, ended = threading.Event(), threading.Event()

    async def wait() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    call = asyncio.ensure_future(cross(there, wait))
    await asyncio.to_thread(begun.wait, 5)
    call.cancel()

    assert await asyncio.to_thread(ended.wait, 5)
    with pytest.raises(asyncio.CancelledError):
        await call


async def test_closed_loop_is_told_at_once():
    closed = asyncio.new_event_loop()
    closed.close()

    with pytest.raises(OwnerGone):
        await cross(closed, lambda: asyncio.sleep(0))
