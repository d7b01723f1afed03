"""Fireworks: open models, hosted.

    pip install 'glidemq-llm[openai,prices]'
    FIREWORKS_API_KEY=... python cookbook/vendors/ask_fireworks.py

The usage is on the chunk that ends the answer. Reasoning is not told from the rest of the output.

Without a key it prints:

    reasoning: hm hm hm hm hm hm
    content: The tide is the pull of the moon.
    tokens: 12 cached_input, 18 input, 14 output (complete)
    cost: 0.00001128 usd (by genai-prices)
"""

import asyncio

from _common import QUESTION, show, vendor
from openai import AsyncOpenAI

from glidemq_core import Queue, Worker
from glidemq_llm import wrap


async def main() -> None:
    with vendor(
        "fireworks", key="FIREWORKS_API_KEY", url="https://api.fireworks.ai/inference/v1"
    ) as at:
        client = wrap(AsyncOpenAI(base_url=at.url, api_key=at.key), provider="fireworks")

        async def answer(job):
            stream = await client.chat.completions.create(
                model="accounts/fireworks/models/gpt-oss-120b",
                messages=[{"role": "user", "content": job.data}],
                stream=True,
            )
            async for _ in stream:
                pass  # the wrapped client writes each piece into the job's stream

        async with client, Queue("fireworks") as queue, Worker("fireworks", answer):
            await show(await queue.add("answer", QUESTION))


if __name__ == "__main__":
    asyncio.run(main())
