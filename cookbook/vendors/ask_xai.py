"""xAI: reasoning is not in the completion tokens.

    pip install 'glidemq-llm[openai]'
    XAI_API_KEY=... python cookbook/vendors/ask_xai.py

Only the total shows that there was any. What the call cost is stated by xAI (`cost_in_usd_ticks`), and a stated price
beats every table.

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
    with vendor("xai", key="XAI_API_KEY", url="https://api.x.ai/v1") as at:
        client = wrap(AsyncOpenAI(base_url=at.url, api_key=at.key), provider="xai")

        async def answer(job):
            stream = await client.chat.completions.create(
                model="grok-4",
                messages=[{"role": "user", "content": job.data}],
                stream=True,
            )
            async for _ in stream:
                pass  # the wrapped client writes each piece into the job's stream

        async with client, Queue("xai") as queue, Worker("xai", answer):
            await show(await queue.add("answer", QUESTION))


if __name__ == "__main__":
    asyncio.run(main())
