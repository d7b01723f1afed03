"""Azure OpenAI: a deployment of yours.

    pip install 'glidemq-llm[openai,prices]'
    AZURE_OPENAI_API_KEY=... AZURE_OPENAI_ENDPOINT=https://NAME.openai.azure.com python cookbook/vendors/ask_azure.py

`model` is the name of the deployment. Call it as the model is called, so that its price is known before the answer names the
model; or give it one: `Pricing({"azure/my-deployment": {"input": "0.25", "output": "2.00"}})`. The first chunk of a
stream has the filter's opinion of the prompt and no choices.

Without a key it prints:

    content: The tide is the pull of the moon.
    tokens: 12 cached_input, 18 input, 8 output, 6 reasoning (complete)
    cost: 0.0000328 usd (by genai-prices)
"""

import asyncio
import os

from _common import QUESTION, show, vendor
from openai import AsyncAzureOpenAI

from glidemq_core import Queue, Worker
from glidemq_llm import wrap


async def main() -> None:
    endpoint = os.environ.get("AZURE_OPENAI_ENDPOINT")
    with vendor("azure", key="AZURE_OPENAI_API_KEY", url=endpoint) as at:
        client = wrap(
            AsyncAzureOpenAI(
                azure_endpoint=at.url, api_key=at.key, api_version="2025-04-01-preview"
            )
        )

        async def answer(job):
            stream = await client.chat.completions.create(
                model="gpt-5-mini",
                messages=[{"role": "user", "content": job.data}],
                stream=True,
            )
            async for _ in stream:
                pass  # the wrapped client writes each piece into the job's stream

        async with client, Queue("azure") as queue, Worker("azure", answer):
            await show(await queue.add("answer", QUESTION))


if __name__ == "__main__":
    asyncio.run(main())
