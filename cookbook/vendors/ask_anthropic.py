"""Anthropic.

    pip install 'glidemq-llm[anthropic,prices]'
    ANTHROPIC_API_KEY=... python cookbook/vendors/ask_anthropic.py

Cached tokens are not in `input_tokens` here, they stand beside it: they are added, where OpenAI's are taken off. The first
event has a first guess of the output, the last one the true figure, which replaces it. Thinking is part of the output.

Without a key it prints:

    content: The tide is the pull of the moon.
    tokens: 12 cached_input, 18 input, 14 output (complete)
    cost: 0.0000892 usd (by genai-prices)
"""

import asyncio

from _common import QUESTION, show, vendor
from anthropic import AsyncAnthropic

from glidemq_core import Queue, Worker
from glidemq_llm import wrap


async def main() -> None:
    with vendor("anthropic", key="ANTHROPIC_API_KEY") as at:
        client = wrap(AsyncAnthropic(base_url=at.url, api_key=at.key))

        async def answer(job):
            async with client.messages.stream(
                model="claude-haiku-4-5",
                max_tokens=500,
                messages=[{"role": "user", "content": job.data}],
            ) as stream:
                await (
                    stream.until_done()
                )  # the wrapped client writes each piece into the job's stream

        async with client, Queue("anthropic") as queue, Worker("anthropic", answer):
            await show(await queue.add("answer", QUESTION))


if __name__ == "__main__":
    asyncio.run(main())
