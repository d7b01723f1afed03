"""Mistral.

    pip install 'glidemq-llm[mistral,prices]'
    MISTRAL_API_KEY=... python cookbook/vendors/ask_mistral.py

The usage is on the chunk that ends the answer, asked for or not.

Without a key it prints:

    content: The tide is the pull of the moon.
    tokens: 12 cached_input, 18 input, 8 output, 6 reasoning (complete)
    cost: 0.000036 usd (by genai-prices)
"""

import asyncio

from _common import QUESTION, show, vendor
from mistralai.client import Mistral

from glidemq_core import Queue, Worker
from glidemq_llm import wrap


async def main() -> None:
    with vendor("mistral", key="MISTRAL_API_KEY") as at:
        client = wrap(Mistral(api_key=at.key, server_url=at.url))

        async def answer(job):
            stream = await client.chat.stream_async(
                model="magistral-small-latest",
                messages=[{"role": "user", "content": job.data}],
            )
            async for _ in stream:
                pass  # the wrapped client writes each piece into the job's stream

        async with client, Queue("mistral") as queue, Worker("mistral", answer):
            await show(await queue.add("answer", QUESTION))


if __name__ == "__main__":
    asyncio.run(main())
