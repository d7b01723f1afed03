"""How many tokens a model can read, by the installed tables."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

from glidemq_llm._rates import (
    Question,
    genai_provider,
    has_genai_prices,
    is_local,
    litellm_entry,
    references,
)


@lru_cache(maxsize=512)
def context_window(model: str, provider: str | None = None) -> int | None:
    """A model's context window in tokens; None if no table knows it, as for a server of one's own."""
    question = Question(model=model, provider=provider)
    if is_local(question):
        return None
    return _by_genai(question) or _by_litellm(question)


def _by_genai(question: Question) -> int | None:
    if not has_genai_prices():
        return None
    from genai_prices.data_snapshot import get_snapshot

    snapshot = get_snapshot()
    for provider, model in references(question):
        try:
            _, known = snapshot.find_provider_model(model, None, genai_provider(provider), None)
        except LookupError:
            continue
        if known.context_window:
            return known.context_window
    return None


def _by_litellm(question: Question, path: Path | None = None) -> int | None:
    entry: Mapping[str, Any] = litellm_entry(question, path) or {}
    found = cast("object", entry.get("max_input_tokens") or entry.get("max_tokens"))
    return found if isinstance(found, int) else None
