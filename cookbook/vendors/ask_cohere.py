"""Cohere, version 2 of its API.

    pip install 'glidemq-llm[cohere,prices]'
    COHERE_API_KEY=... python cookbook/vendors/ask_cohere.py

It processes more tokens than it bills (`tokens` and `billed_units`): the processed ones are booked, the billed ones are
priced.

Without a key it prints:

    content: The tide is the pull of the moon.
    tokens: 12 cached_input, 18 input, 14 output (complete)
    cost: 0.000215 usd (by genai-prices)
"""

import asyncio

from _common import QUESTION, show, vendor
from cohere import AsyncClientV2

from glidemq_core import Queue, Worker
from glidemq_llm import wrap


async def main() -> None:
    with vendor("cohere", key="COHERE_API_KEY") as at:
        client = wrap(AsyncClientV2(api_key=at.key, base_url=at.url))

        async def answer(job):
            stream = client.chat_stream(
                model="command-a-03-2025",
                messages=[{"role": "user", "content": job.data}],
            )
            async for _ in stream:
                pass  # the wrapped client writes each piece into the job's stream

        async with client, Queue("cohere") as queue, Worker("cohere", answer):
            await show(await queue.add("answer", QUESTION))


if __name__ == "__main__":
    asyncio.run(main())
