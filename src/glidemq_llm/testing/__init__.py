"""For tests and trials without a key: a fake model provider that speaks the vendors' wire formats on loopback.

It runs in a process of its own. It streams at a set pace, hangs, fails and breaks off as it is told, and its log is the
ground truth for money: what it billed, whatever became of the answer.

    with FakeProvider() as provider:
        client = AsyncOpenAI(base_url=provider.openai_url, api_key="-", max_retries=0)
        provider.plan("m", Behaviour(status=429), Behaviour(tokens=5, faults={3: "disconnect"}), Behaviour())
        ...
        assert provider.billed(model="m") == {"input": 12, "output": 13}

What one call does is said, in this order, by the last message (Behaviour.as_prompt), the plan of its model, JSON in the
model's name (`m{"fake": {"tokens": 3}}`), or usually().
"""

from __future__ import annotations

from glidemq_llm.testing._plan import Behaviour
from glidemq_llm.testing._provider import FakeProvider, ProviderCall

__all__ = ["Behaviour", "FakeProvider", "ProviderCall"]
