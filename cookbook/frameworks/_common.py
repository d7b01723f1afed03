"""What the recipes of this folder share: a model that calls a tool and then answers, and what they print of a job."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from openai import AsyncOpenAI

from glidemq_core import JobHandle
from glidemq_llm import wrap
from glidemq_llm.testing import Behaviour, FakeProvider

QUESTION = "Do I need an umbrella in Oslo?"
MODEL = "gpt-5-mini"


@contextmanager
def openai(*answers: Behaviour) -> Iterator[AsyncOpenAI]:
    """A wrapped client: of OpenAI, if there is a key; else of a server on loopback that answers this, one after the other."""
    if os.environ.get("OPENAI_API_KEY"):
        yield wrap(AsyncOpenAI())
        return
    with FakeProvider() as provider:
        provider.plan(MODEL, *answers)
        yield wrap(AsyncOpenAI(base_url=provider.openai_url, api_key="none"))


def calls(tool: str, **arguments: object) -> Behaviour:
    """A turn that calls a tool."""
    asked = [{"name": tool, "arguments": arguments}]
    return Behaviour(text="Let me see. ", input=20, tools=asked)


def says(text: str) -> Behaviour:
    """A turn that answers."""
    return Behaviour(text=text, input=30)


async def show(job: JobHandle) -> None:
    """Print what the job streams, its result, and what it has used."""
    async for chunk in job.stream():
        if chunk.type == "content":
            print(chunk.content, end="", flush=True)
    print("\nresult:", await job.result(timeout=120))
    usage = (await job.snapshot()).usage
    print(f"booked: {len(usage.calls)} calls, {usage.total_tokens} tokens")
