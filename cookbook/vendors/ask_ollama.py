"""Ollama, on a machine of yours.

    pip install 'glidemq-llm[ollama]'
    ollama pull llama3.2
    OLLAMA_HOST=http://localhost:11434 python cookbook/vendors/ask_ollama.py

Its own API tells of tokens on the line that ends the answer, and of no cache. What runs on a machine of yours has no price; with
`pricing=Pricing({"ollama/*": {"input": "0.05", "output": "0.20"}})` it has yours.

Without OLLAMA_HOST it prints:

    content: The tide is the pull of the moon.
    tokens: 30 input, 8 output (complete)
    cost: unknown
"""

import asyncio
import os

from _common import QUESTION, show, vendor
from ollama import AsyncClient

from glidemq_core import Queue, Worker
from glidemq_llm import wrap


async def main() -> None:
    with vendor("ollama", key="OLLAMA_HOST", url=os.environ.get("OLLAMA_HOST")) as at:
        client = wrap(AsyncClient(host=at.url))

        async def answer(job):
            stream = await client.chat(
                model="llama3.2",
                messages=[{"role": "user", "content": job.data}],
                stream=True,
            )
            async for _ in stream:
                pass  # the wrapped client writes each piece into the job's stream

        async with client, Queue("ollama") as queue, Worker("ollama", answer):
            await show(await queue.add("answer", QUESTION))


if __name__ == "__main__":
    asyncio.run(main())
