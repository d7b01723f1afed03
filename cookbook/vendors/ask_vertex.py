"""Gemini on Vertex AI, by google-genai.

    pip install 'glidemq-llm[google,prices]'
    gcloud auth application-default login
    GOOGLE_CLOUD_PROJECT=... python cookbook/vendors/ask_vertex.py

The same client and the same figures as `ask_gemini.py`; the traffic's type beside the usage says at which tier it was
served. Claude on Vertex is `wrap(anthropic.AsyncAnthropicVertex(...))`, and from there on as in `ask_anthropic.py`.

Without a project it prints:

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
    with vendor("vertex", key="GOOGLE_CLOUD_PROJECT") as at:
        place = {"project": at.key, "location": "global"} if at.url is None else {"api_key": "none"}
        client = wrap(genai.Client(vertexai=True, **place, http_options={"base_url": at.url}))

        async def answer(job):
            stream = await client.aio.models.generate_content_stream(
                model="gemini-2.5-flash", contents=job.data
            )
            async for _ in stream:
                pass  # the wrapped client writes each piece into the job's stream

        async with client.aio, Queue("vertex") as queue, Worker("vertex", answer):
            await show(await queue.add("answer", QUESTION))


if __name__ == "__main__":
    asyncio.run(main())
