"""LiteLLM: one function for a hundred vendors.

    pip install 'glidemq-llm[litellm]'   # in an environment of its own: it holds openai at 2.x
    OPENAI_API_KEY=... python cookbook/vendors/ask_litellm.py

The vendor is the first part of the model's name. The price is what LiteLLM says. Its own retries are off inside of jobs: the
queue retries. `wrap` also takes `litellm.completion`, the module and a `Router`.

Without a key it prints:

    content: The tide is the pull of the moon.
    tokens: 12 cached_input, 18 input, 8 output, 6 reasoning (complete)
    cost: 0.0000328 usd (by provider)
"""

import asyncio
import os

from _common import QUESTION, show, vendor

from glidemq_core import Queue, Worker
from glidemq_llm import wrap

# Before its import: or it fetches its table of prices from the network.
os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
import litellm


async def main() -> None:
    with vendor("openai", key="OPENAI_API_KEY") as at:
        completion = wrap(litellm.acompletion)

        async def answer(job):
            stream = await completion(
                model="openai/gpt-5-mini",
                messages=[{"role": "user", "content": job.data}],
                stream=True,
                api_base=at.url,
                api_key=at.key,
            )
            async for _ in stream:
                pass  # the wrapped function writes each piece into the job's stream

        async with Queue("litellm") as queue, Worker("litellm", answer):
            await show(await queue.add("answer", QUESTION))


if __name__ == "__main__":
    asyncio.run(main())
