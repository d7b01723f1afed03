"""LangChain with a wrapped client: its model's calls are metered, and its answer streams, like any call of a job.

    pip install 'glidemq-llm[openai]' langchain-openai
    OPENAI_API_KEY=... python cookbook/frameworks/with_langchain.py

`ChatOpenAI` takes the wrapped client's resource for its async calls; `root_async_client` is for its structured output and
the Responses API.

Without a key it prints:

    Let me see. Yes: it rains in Oslo.
    result: Yes: it rains in Oslo.
    booked: 2 calls, 59 tokens
"""

import asyncio

from _common import MODEL, QUESTION, calls, openai, says, show
from langchain_core.messages import HumanMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI

from glidemq_core import Queue, Worker


@tool
def weather(city: str) -> str:
    """The weather of a city."""
    return f"rain in {city}"


async def main() -> None:
    with openai(calls("weather", city="Oslo"), says("Yes: it rains in Oslo.")) as client:
        model = ChatOpenAI(
            model=MODEL,
            async_client=client.chat.completions,
            root_async_client=client,
            api_key="held by the client",
        ).bind_tools([weather])

        async def answer(job):
            messages = [HumanMessage(job.data)]
            while True:
                said = None
                async for piece in model.astream(messages):
                    said = piece if said is None else said + piece
                if not said.tool_calls:
                    return str(said.text)
                messages.append(said)
                messages += [await weather.ainvoke(call) for call in said.tool_calls]

        async with client, Queue("langchain") as queue, Worker("langchain", answer):
            await show(await queue.add("answer", QUESTION))


if __name__ == "__main__":
    asyncio.run(main())
