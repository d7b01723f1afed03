"""The OpenAI Agents SDK with a wrapped client: its agent's turns are metered, and its answer streams, like any call of a job.

    pip install 'glidemq-llm[openai]' openai-agents
    OPENAI_API_KEY=... python cookbook/frameworks/with_openai_agents.py

Its own tracing, which sends what is said to OpenAI, is switched off here.

Without a key it prints:

    Let me see. Yes: it rains in Oslo.
    result: Yes: it rains in Oslo.
    booked: 2 calls, 59 tokens
"""

import asyncio

from _common import MODEL, QUESTION, calls, openai, says, show
from agents import Agent, OpenAIChatCompletionsModel, Runner, function_tool, set_tracing_disabled

from glidemq_core import Queue, Worker

set_tracing_disabled(disabled=True)


@function_tool
def weather(city: str) -> str:
    """The weather of a city."""
    return f"rain in {city}"


async def main() -> None:
    with openai(calls("weather", city="Oslo"), says("Yes: it rains in Oslo.")) as client:
        model = OpenAIChatCompletionsModel(model=MODEL, openai_client=client)
        agent = Agent(name="weather", model=model, tools=[weather])

        async def answer(job):
            run = Runner.run_streamed(agent, job.data)
            async for _ in run.stream_events():
                pass  # the wrapped client writes each piece into the job's stream
            return run.final_output

        async with client, Queue("openai-agents") as queue, Worker("openai-agents", answer):
            await show(await queue.add("answer", QUESTION))


if __name__ == "__main__":
    asyncio.run(main())
