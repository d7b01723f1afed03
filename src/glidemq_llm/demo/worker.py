"""A worker process of the demo: `python -m glidemq_llm.demo.worker QUEUE`.

Nothing in it is special: the vendors' own clients, the ready-made chat handler, an ordinary worker. Besides, it says
on standard output which jobs it starts, so that the demo knows whom to kill, and ends when its standard input does.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from glidemq_core import Worker
from glidemq_llm import Pricing, chat_handler
from glidemq_llm.demo.prices import LOCAL_PRICES


def clients() -> dict[str, Any]:
    """The clients of the vendors that have a key in the environment."""
    found: dict[str, Any] = {}
    if os.environ.get("OPENAI_API_KEY"):
        from openai import AsyncOpenAI

        found["openai"] = AsyncOpenAI()
    if os.environ.get("ANTHROPIC_API_KEY"):
        from anthropic import AsyncAnthropic

        found["anthropic"] = AsyncAnthropic()
    return found


def announcing(handler: Callable[[Any], Awaitable[Any]]) -> Callable[[Any], Awaitable[Any]]:
    """The same handler, which says when it starts a job."""

    async def announced(job: Any) -> Any:
        print(json.dumps({"job": job.id, "run": job.run}), flush=True)
        return await handler(job)

    return announced


async def input_ends() -> None:
    """Wait until standard input is closed: whoever started this process has gone."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    await reader.read()


async def work(queue: str) -> None:
    """Take chat jobs until standard input ends."""
    handler = announcing(chat_handler(clients(), pricing=Pricing(overrides=LOCAL_PRICES)))
    async with Worker(queue, handler, concurrency=2):
        print("ready", flush=True)
        await input_ends()


if __name__ == "__main__":
    asyncio.run(work(sys.argv[1]))
