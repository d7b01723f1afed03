"""The fake provider, as the tests name it."""

from __future__ import annotations

from glidemq_llm.testing import Behaviour, ProviderCall
from glidemq_llm.testing import FakeProvider as Provider

__all__ = ["Behaviour", "Provider", "ProviderCall"]
