"""Perplexity: answers with their sources.

    pip install 'glidemq-llm[openai]'
    PERPLEXITY_API_KEY=... python cookbook/vendors/ask_perplexity.py

Reasoning and sources (`citation_tokens`) are billed, but in no sum of its own; the usage comes in every chunk, with a price
in the last alone. Each source is a chunk of the job's stream.

Without a key it prints:

    content: The tide is the pull of the moon.
    citation: {"url": "https://tides.example/moon"}
    tokens: 20 citation, 30 input, 8 output, 6 reasoning (complete)
    cost: 0.000064 usd (by provider)
"""

import asyncio

from _common import QUESTION, show, vendor
from openai import AsyncOpenAI

from glidemq_core import Queue, Worker
from glidemq_llm import wrap


async def main() -> None:
    with vendor("perplexity", key="PERPLEXITY_API_KEY", url="https://api.perplexity.ai") as at:
        client = wrap(AsyncOpenAI(base_url=at.url, api_key=at.key), provider="perplexity")

        async def answer(job):
            stream = await client.chat.completions.create(
                model="sonar-reasoning-pro",
                messages=[{"role": "user", "content": job.data}],
                stream=True,
            )
            async for _ in stream:
                pass  # the wrapped client writes each piece into the job's stream

        async with client, Queue("perplexity") as queue, Worker("perplexity", answer):
            await show(await queue.add("answer", QUESTION))


if __name__ == "__main__":
    asyncio.run(main())
