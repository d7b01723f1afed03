"""OpenAI, by its Responses API.

    pip install 'glidemq-llm[openai,prices]'
    OPENAI_API_KEY=... python cookbook/vendors/ask_openai.py

Cached tokens are part of the input here and reasoning is part of the output: they are told apart, and nothing is counted
twice.

Without a key it prints:

    content: The tide is the pull of the moon.
    tokens: 12 cached_input, 18 input, 8 output, 6 reasoning (complete)
    cost: 0.0000328 usd (by genai-prices)
"""

import asyncio

from _common import QUESTION, show, vendor
from openai import AsyncOpenAI

from glidemq_core import Queue, Worker
from glidemq_llm import wrap


async def main() -> None:
    with vendor("openai", key="OPENAI_API_KEY") as at:
        client = wrap(AsyncOpenAI(base_url=at.url, api_key=at.key))

        async def answer(job):
            stream = await client.responses.create(model="gpt-5-mini", input=job.data, stream=True)
            async for _ in stream:
                pass  # the wrapped client writes each piece into the job's stream

        async with client, Queue("openai") as queue, Worker("openai", answer):
            await show(await queue.add("answer", QUESTION))


if __name__ == "__main__":
    asyncio.run(main())
