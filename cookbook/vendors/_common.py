"""What the recipes of this folder share: whom they ask, and what they print of a job."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from glidemq_core import JobHandle
from glidemq_llm.testing import Behaviour, FakeProvider

QUESTION = "In one sentence: what causes the tides?"


@dataclass(frozen=True)
class Address:
    url: str | None  # None: the client knows it
    key: str


@contextmanager
def vendor(name: str, *, key: str, url: str | None = None) -> Iterator[Address]:
    """The vendor itself, if the environment has a key for it; else a server on loopback that speaks its dialect."""
    if os.environ.get(key):
        yield Address(url, os.environ[key])
        return
    with FakeProvider() as provider:
        provider.usually(
            Behaviour(
                text="The tide is the pull of the moon.",  # 8 tokens
                input=30,
                cached=12,
                reasoning=6,
                citation=20 if name == "perplexity" else 0,
            )
        )
        yield Address(provider.base_url(name), "none")


async def show(job: JobHandle) -> None:
    """Print what the job streams, its result if it has one, and what it has used."""
    printing = ""
    async for chunk in job.stream():
        if chunk.type in ("reasoning", "content", "citation"):
            label = "" if chunk.type == printing else f"{chunk.type}: "
            print("\n" if printing and label else "", label, chunk.content, sep="", end="")
            printing = chunk.type
    print()
    result = await job.result(timeout=120)
    if result is not None:
        print("result:", result)

    usage = (await job.snapshot()).usage
    call = usage.calls[0]
    tokens = ", ".join(f"{count} {category}" for category, count in sorted(usage.tokens.items()))
    print(f"tokens: {tokens} ({call['status']})")
    if "total" in usage.costs:
        print(f"cost: {usage.costs['total']:f} usd (by {call['details']['priced_by']})")
    else:
        print("cost: unknown")
