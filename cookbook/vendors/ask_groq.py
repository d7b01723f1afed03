"""Groq: limits in the headers of each answer.

    pip install 'glidemq-llm[openai,prices]'
    GROQ_API_KEY=... python cookbook/vendors/ask_groq.py

It states its usage twice, as `x_groq.usage` and as `usage`; it is counted once. Its limits are of requests a day and of
tokens a minute.

Without a key it prints:

    reasoning: hm hm hm hm hm hm
    content: The tide is the pull of the moon.
    result: 14399 requests left today
    tokens: 12 cached_input, 18 input, 8 output, 6 reasoning (complete)
    cost: 0.000012 usd (by genai-prices)
"""

import asyncio

from _common import QUESTION, show, vendor
from openai import AsyncOpenAI

from glidemq_core import Queue, Worker
from glidemq_llm import parse_rate_limits, wrap


async def main() -> None:
    with vendor("groq", key="GROQ_API_KEY", url="https://api.groq.com/openai/v1") as at:
        client = wrap(AsyncOpenAI(base_url=at.url, api_key=at.key), provider="groq")

        async def answer(job):
            raw = await client.chat.completions.with_raw_response.create(
                model="openai/gpt-oss-120b",
                messages=[{"role": "user", "content": job.data}],
                stream=True,
            )
            async for _ in raw.parse():
                pass  # the wrapped client writes each piece into the job's stream
            left = parse_rate_limits(raw.headers, "groq").axes["requests"].remaining
            return f"{left} requests left today"

        async with client, Queue("groq") as queue, Worker("groq", answer):
            await show(await queue.add("answer", QUESTION))


if __name__ == "__main__":
    asyncio.run(main())
