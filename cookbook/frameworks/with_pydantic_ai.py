"""pydantic-ai with a wrapped client: its agent's turns are metered, and its answer streams, like any call of a job.

    pip install 'glidemq-llm[openai]' 'pydantic-ai-slim[openai]'
    OPENAI_API_KEY=... python cookbook/frameworks/with_pydantic_ai.py

Without a key it prints:

    Let me see. Yes: it rains in Oslo.
    result: Yes: it rains in Oslo.
    booked: 2 calls, 59 tokens
"""

import asyncio

from _common import MODEL, QUESTION, calls, openai, says, show
from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

from glidemq_core import Queue, Worker


async def main() -> None:
    with openai(calls("weather", city="Oslo"), says("Yes: it rains in Oslo.")) as client:
        agent = Agent(OpenAIChatModel(MODEL, provider=OpenAIProvider(openai_client=client)))

        @agent.tool_plain
        def weather(city: str) -> str:
            """The weather of a city."""
            return f"rain in {city}"

        async def read(context, events):  # that there is one makes every turn a stream
            async for _ in events:
                pass  # the wrapped client writes each piece into the job's stream

        async def answer(job):
            run = await agent.run(job.data, event_stream_handler=read)
            return run.output

        async with client, Queue("pydantic-ai") as queue, Worker("pydantic-ai", answer):
            await show(await queue.add("answer", QUESTION))


if __name__ == "__main__":
    asyncio.run(main())
