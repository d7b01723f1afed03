"""An agent: a model that works with your functions, one of which a person has to approve.

    OPENAI_API_KEY=... python cookbook/12_agent_with_tools.py

Each turn of the model and each call of a tool is a step of the job: whatever interrupts it, nothing is done or paid for
twice. While a person thinks about the mail, the job is parked and holds nothing. What a tool raises, and a refusal, are told to
the model. With a key it asks OpenAI, without one a server on loopback that plays this story.

It prints:

    I'll look up the order.
    find_order: {"id":7,"item":"a kettle","days_late":9}
    I'll write to the customer.
    waiting for a person: send_mail({"to": "ada@example.org", "text": "Your kettle is late, sorry."})
    send_mail: sent
    The kettle is nine days late; Ada has been told.

    3 turns, 2 calls of tools, 126 tokens
"""

import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager

from openai import AsyncOpenAI

from glidemq_core import JobHandle, Queue, Worker
from glidemq_llm import agent_handler
from glidemq_llm.testing import Behaviour, FakeProvider


def find_order(id: int) -> dict:
    """Look up an order by its number."""
    return {"id": id, "item": "a kettle", "days_late": 9}


async def send_mail(to: str, text: str) -> str:
    """Send a mail to a customer."""
    return "sent"


MAIL = {"to": "ada@example.org", "text": "Your kettle is late, sorry."}
STORY = [
    Behaviour(
        text="I'll look up the order.",
        input=30,
        tools=[{"name": "find_order", "arguments": {"id": 7}}],
    ),
    Behaviour(
        text="I'll write to the customer.",
        input=34,
        tools=[{"name": "send_mail", "arguments": MAIL}],
    ),
    Behaviour(text="The kettle is nine days late; Ada has been told.", input=42),
]


@contextmanager
def model() -> Iterator[AsyncOpenAI]:
    if os.environ.get("OPENAI_API_KEY"):
        yield AsyncOpenAI()
        return
    with FakeProvider() as provider:
        provider.plan("gpt-5-mini", *STORY)
        yield AsyncOpenAI(base_url=provider.openai_url, api_key="none")


async def show(queue: Queue, job: JobHandle) -> None:
    called = ""
    async for chunk in job.stream():
        if chunk.type == "content":
            print(chunk.content, end="", flush=True)
        elif chunk.type == "tool_call":
            called = chunk.fields.get("name", called)
        elif chunk.type == "tool_result":
            print(f"{chunk.fields['name']}: {chunk.content}")
        elif chunk.type == "done":  # of a turn; the job's end ends the loop
            print()
            if called == "send_mail" and chunk.content == "tool_calls":
                await approve(queue, job)


async def approve(queue: Queue, job: JobHandle) -> None:
    """The person, whose inbox shows `queue.suspended()`."""
    async for event in queue.events(after=""):
        if event.type == "suspended" and event.job_id == job.id:
            break
    waiting = next(one for one in await queue.suspended() if one.job_id == job.id)
    print("waiting for a person:", waiting.reason)
    await job.signal(waiting.waits_for, {"approved": True, "by": "Eve"})


async def main() -> None:
    with model() as client:
        agent = agent_handler({"openai": client}, [find_order, send_mail], approve={"send_mail"})
        async with client, Queue("agent-tools") as queue, Worker("agent-tools", agent):
            messages = [
                {"role": "user", "content": "Order 7 of ada@example.org is late. Tell her."}
            ]
            job = await queue.add("agent", {"model": "openai/gpt-5-mini", "messages": messages})
            await show(queue, job)
            result = await job.result(timeout=60)
            tools, tokens = result["tool_calls"], result["usage"]["total_tokens"]
            print(f"\n{result['turns']} turns, {len(tools)} calls of tools, {tokens} tokens")


if __name__ == "__main__":
    asyncio.run(main())
