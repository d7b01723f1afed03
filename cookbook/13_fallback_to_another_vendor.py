"""Another vendor's model where the first one fails, in the middle of its answer too.

    pip install 'glidemq-llm[openai,anthropic]'
    python cookbook/13_fallback_to_another_vendor.py

The job names its models in order, each as PROVIDER/MODEL; messages are in the chat format, whoever is asked. All this is one
attempt of the job. What the first model has said is withdrawn by a `reset`, so that readers keep the last answer alone, and
both calls are booked. Here the vendors are played by servers on loopback.

It prints:

    gpt-5-mini: The tide is (withdrawn: fallback)
    claude-haiku-4-5: The tide is the pull of the moon.
    the reader keeps: The tide is the pull of the moon.

    openai/gpt-5-mini failed: stream_interrupted
    anthropic/claude-haiku-4-5 answered
    answered by fallback 1 in attempt 1; 2 calls are booked
"""

import asyncio

from anthropic import AsyncAnthropic
from openai import AsyncOpenAI

from glidemq_core import JobHandle, Queue, Worker, kept_text
from glidemq_llm import chat_handler
from glidemq_llm.testing import Behaviour, FakeProvider

TEXT = "The tide is the pull of the moon."


async def show(job: JobHandle) -> None:
    chunks, model, said = [], "", ""
    async for chunk in job.stream():
        chunks.append(chunk)
        if chunk.type == "start":
            model, said = chunk.fields["model"], ""
        elif chunk.type == "content":
            said += chunk.content
        elif chunk.type == "reset":
            print(f"{model}: {said.strip()} (withdrawn: {chunk.content})")
        elif chunk.type == "end":
            print(f"{model}: {said}")
    print("the reader keeps:", kept_text(chunks))


async def main() -> None:
    with FakeProvider() as provider:
        provider.plan("gpt-5-mini", Behaviour(text=TEXT, faults={3: "disconnect"}))
        provider.plan("claude-haiku-4-5", Behaviour(text=TEXT))
        openai = AsyncOpenAI(base_url=provider.base_url("openai"), api_key="none")
        anthropic = AsyncAnthropic(base_url=provider.base_url("anthropic"), api_key="none")
        handler = chat_handler({"openai": openai, "anthropic": anthropic})
        async with openai, anthropic, Queue("fallback") as queue, Worker("fallback", handler):
            messages = [{"role": "user", "content": "What causes the tides?"}]
            job = await queue.add(
                "chat",
                {"model": "openai/gpt-5-mini", "messages": messages, "max_tokens": 100},
                fallbacks=[{"model": "anthropic/claude-haiku-4-5"}],
            )
            await show(job)
            result, snapshot = await job.result(timeout=30), await job.snapshot()

        print()
        for hop in snapshot.hops:
            print(hop["model"], f"failed: {hop['category']}" if "error" in hop else "answered")
        print(
            f"answered by fallback {result['fallback_index']} in attempt {snapshot.attempt};",
            f"{len(snapshot.usage.calls)} calls are booked",
        )


if __name__ == "__main__":
    asyncio.run(main())
