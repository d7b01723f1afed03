"""vLLM, on a machine of yours.

    pip install 'glidemq-llm[openai]'
    VLLM_URL=http://localhost:8000/v1 python cookbook/vendors/ask_vllm.py

`provider="vllm"` says whose answers these are: at an address of your own it can't be told. Such tokens have no price, though
the same model may have one elsewhere; with `pricing=Pricing({"vllm/*": {"input": "0.05", "output": "0.20"}})` they have
yours. The server tells of cached tokens if it runs with `--enable-prompt-tokens-details`.

Without VLLM_URL it prints:

    reasoning: hm hm hm hm hm hm
    content: The tide is the pull of the moon.
    tokens: 12 cached_input, 18 input, 14 output (complete)
    cost: unknown
"""

import asyncio
import os

from _common import QUESTION, show, vendor
from openai import AsyncOpenAI

from glidemq_core import Queue, Worker
from glidemq_llm import wrap


async def main() -> None:
    with vendor("vllm", key="VLLM_URL", url=os.environ.get("VLLM_URL")) as at:
        client = wrap(
            AsyncOpenAI(base_url=at.url, api_key=os.environ.get("VLLM_API_KEY", "none")),
            provider="vllm",
        )

        async def answer(job):
            stream = await client.chat.completions.create(
                model="openai/gpt-oss-20b",
                messages=[{"role": "user", "content": job.data}],
                stream=True,
            )
            async for _ in stream:
                pass  # the wrapped client writes each piece into the job's stream

        async with client, Queue("vllm") as queue, Worker("vllm", answer):
            await show(await queue.add("answer", QUESTION))


if __name__ == "__main__":
    asyncio.run(main())
