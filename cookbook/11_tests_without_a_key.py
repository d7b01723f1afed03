"""Test your own handlers without a key: a fake provider that fails as it is told, and knows what it billed.

    python cookbook/11_tests_without_a_key.py

It speaks the wire formats of nineteen vendors (`provider.base_url("anthropic")`), so that the clients are the real ones.

It prints:

    attempt 1: refused with 429
    attempt 2: broke off after 4 tokens
    attempt 3: complete
    the reader keeps: The tide is the pull of the moon.
    billed for the good answer: 30 input, 8 output; booked: 30 input, 8 output
    and what came of the broken one is booked as an estimate: True
"""

import asyncio

from openai import AsyncOpenAI

from glidemq_core import Queue, Worker, kept_text
from glidemq_llm import chat_handler
from glidemq_llm.testing import Behaviour, FakeProvider

PLAN = [
    Behaviour(status=429, headers={"retry-after": "0.1"}),
    Behaviour(text="The tides come and go.", faults={4: "disconnect"}),
    Behaviour(text="The tide is the pull of the moon.", input=30),
]


def told(tokens) -> str:
    return f"{tokens['input']} input, {tokens['output']} output"


async def main() -> None:
    with FakeProvider() as provider:
        provider.plan("some-model", *PLAN)
        client = AsyncOpenAI(base_url=provider.base_url("openai"), api_key="none")
        handler = chat_handler({"openai": client}, model="openai/some-model")

        async with client, Queue("tested") as queue, Worker("tested", handler):
            messages = [{"role": "user", "content": "What causes the tides?"}]
            job = await queue.add("chat", {"messages": messages}, attempts=3, backoff=0.1)
            chunks = [chunk async for chunk in job.stream()]
            usage = (await job.snapshot()).usage

        refused, broken, good = provider.calls(model="some-model")
        print(f"attempt 1: refused with {refused.status}")
        print(f"attempt 2: broke off after {broken.output} tokens")
        print("attempt 3:", good.outcome)
        print("the reader keeps:", kept_text(chunks))

        estimated, booked = usage.calls
        billed = {"input": good.input, "output": good.output}
        print(f"billed for the good answer: {told(billed)}; booked: {told(booked['tokens'])}")
        is_estimate = estimated["status"] != "complete"
        print("and what came of the broken one is booked as an estimate:", is_estimate)


if __name__ == "__main__":
    asyncio.run(main())
