"""DeepSeek: the thinking streams beside the answer.

    pip install 'glidemq-llm[openai,prices]'
    DEEPSEEK_API_KEY=... python cookbook/vendors/ask_deepseek.py

Its reasoning arrives as `reasoning_content` and is a chunk type of its own in the job's stream; its cached tokens are
told as `prompt_cache_hit_tokens`.

Without a key it prints:

    reasoning: hm hm hm hm hm hm
    content: The tide is the pull of the moon.
    tokens: 12 cached_input, 18 input, 8 output, 6 reasoning (complete)
    cost: 0.00001055 usd (by genai-prices)
"""

import asyncio

from _common import QUESTION, show, vendor
from openai import AsyncOpenAI

from glidemq_core import Queue, Worker
from glidemq_llm import wrap


async def main() -> None:
    with vendor("deepseek", key="DEEPSEEK_API_KEY", url="https://api.deepseek.com") as at:
        client = wrap(AsyncOpenAI(base_url=at.url, api_key=at.key), provider="deepseek")

        async def answer(job):
            stream = await client.chat.completions.create(
                model="deepseek-reasoner",
                messages=[{"role": "user", "content": job.data}],
                stream=True,
            )
            async for _ in stream:
                pass  # the wrapped client writes each piece into the job's stream

        async with client, Queue("deepseek") as queue, Worker("deepseek", answer):
            await show(await queue.add("answer", QUESTION))


if __name__ == "__main__":
    asyncio.run(main())
