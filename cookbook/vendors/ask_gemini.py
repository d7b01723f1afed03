"""Gemini, by google-genai.

    pip install 'glidemq-llm[google,prices]'
    GEMINI_API_KEY=... python cookbook/vendors/ask_gemini.py

Thoughts are not part of `candidates_token_count` here, they stand beside it. Every chunk has running totals; the last one
counts.

Without a key it prints:

    content: The tide is the pull of the moon.
    tokens: 12 cached_input, 18 input, 8 output, 6 reasoning (complete)
    cost: 0.00004076 usd (by genai-prices)
"""

import asyncio

from _common import QUESTION, show, vendor
from google import genai

from glidemq_core import Queue, Worker
from glidemq_llm import wrap


async def main() -> None:
    with vendor("google", key="GEMINI_API_KEY") as at:
        client = wrap(genai.Client(api_key=at.key, http_options={"base_url": at.url}))

        async def answer(job):
            stream = await client.aio.models.generate_content_stream(
                model="gemini-2.5-flash", contents=job.data
            )
            async for _ in stream:
                pass  # the wrapped client writes each piece into the job's stream

        async with client.aio, Queue("gemini") as queue, Worker("gemini", answer):
            await show(await queue.add("answer", QUESTION))


if __name__ == "__main__":
    asyncio.run(main())
