"""The fake provider, as the tests name it."""

from __future__ import annotations

import asyncio

from glidemq_llm.testing import Behaviour, ProviderCall
from glidemq_llm.testing import FakeProvider as Provider


async def ended_call(provider: Provider, model: str) -> ProviderCall:
    """A model's latest call, once the provider has noted its end: it sees only later that its caller has left."""

    def look() -> ProviderCall:
        while True:
            seen = len(provider.events("end"))  # before the look, so that none is missed
            calls = provider.calls(model=model)
            if calls and calls[-1].ended is not None:
                return calls[-1]
            provider.wait("end", count=seen + 1)  # others use it, too: this need not be ours

    return await asyncio.to_thread(look)


__all__ = ["Behaviour", "Provider", "ProviderCall", "ended_call"]
