"""The first job: add a chat, watch the answer arrive, see what it cost.

    python cookbook/01_first_job.py

With OPENAI_API_KEY set it asks OpenAI; without, a small model on this machine, which `make demo` has installed in the
repository's `.venv`. The server is the embedded one, unless GLIDEMQ_URL names another.
"""

import asyncio
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from openai import AsyncOpenAI

from glidemq_core import Queue, Worker
from glidemq_llm import chat_handler
from glidemq_llm.demo.local import local_model


@asynccontextmanager
async def model() -> AsyncGenerator[tuple[str, AsyncOpenAI]]:
    if os.environ.get("OPENAI_API_KEY"):
        yield "openai/gpt-5-mini", AsyncOpenAI()
        return
    async with local_model() as url:
        yield "openai/smollm2", AsyncOpenAI(base_url=url, api_key="local")


async def main() -> None:
    async with (
        model() as (name, client),
        Queue("first") as queue,
        Worker("first", chat_handler({"openai": client}), concurrency=10),
    ):
        messages = [{"role": "user", "content": "In one sentence: what causes the tides?"}]
        job = await queue.add("chat", {"model": name, "messages": messages, "max_tokens": 60})

        async for chunk in job.stream():
            if chunk.type == "content":
                print(chunk.content, end="", flush=True)

        await job.result(timeout=60)
        print("\n\ntokens:", dict((await job.snapshot()).usage.tokens))


if __name__ == "__main__":
    asyncio.run(main())
