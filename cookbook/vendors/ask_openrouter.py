"""OpenRouter: many vendors' models behind one address, with the price in the answer.

    pip install 'glidemq-llm[openai]'
    OPENROUTER_API_KEY=... python cookbook/vendors/ask_openrouter.py

While it waits for the vendor behind it, comments keep the connection alive. `usage.cost` is what you pay; it beats every
table.

Without a key it prints:

    reasoning: hm hm hm hm hm hm
    content: The tide is the pull of the moon.
    tokens: 12 cached_input, 18 input, 8 output, 6 reasoning (complete)
    cost: 0.000044 usd (by provider)
"""

import asyncio

from _common import QUESTION, show, vendor
from openai import AsyncOpenAI

from glidemq_core import Queue, Worker
from glidemq_llm import wrap


async def main() -> None:
    with vendor("openrouter", key="OPENROUTER_API_KEY", url="https://openrouter.ai/api/v1") as at:
        client = wrap(AsyncOpenAI(base_url=at.url, api_key=at.key), provider="openrouter")

        async def answer(job):
            stream = await client.chat.completions.create(
                model="anthropic/claude-haiku-4.5",
                messages=[{"role": "user", "content": job.data}],
                stream=True,
            )
            async for _ in stream:
                pass  # the wrapped client writes each piece into the job's stream

        async with client, Queue("openrouter") as queue, Worker("openrouter", answer):
            await show(await queue.add("answer", QUESTION))


if __name__ == "__main__":
    asyncio.run(main())
