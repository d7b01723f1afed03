"""The grammar of token categories: which exist, which side they are on, whose price they fall back
to.

A usage is split into *disjoint* categories, so that their sum is the total. The vocabulary is open:
an unknown modality becomes `<word>_input` or `<word>_output` and works everywhere without a change
here.

    input  cached_input  cache_write  cache_write_<ttl>  tool_input  <modality>_input
    cached_<modality>_input output  reasoning  citation  other  <modality>_output
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_NAMED_FALLBACKS = {
    "cached_input": "input",
    "cache_write": "input",
    "tool_input": "input",
    "reasoning": "output",
    "citation": "output",
    # Tokens the vendor counts but does not explain: priced as output, because guessing low would
    # let a budget leak.
    "other": "output",
}

_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
_MAX_CATEGORIES = 40
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


def price_fallback(category: str) -> str | None:
    """The category whose price applies when this one has none of its own; None at the end of the
    chain.
    """
    named = _NAMED_FALLBACKS.get(category)
    if named is not None:
        return named
    if category in ("input", "output"):
        return None
    if category.startswith("cache_write_"):
        return "cache_write"
    if category.startswith("cached_") and category.endswith("_input"):
        return "cached_input"
    return "input" if category.endswith("_input") else "output"


def is_input(category: str) -> bool:
    """Whether the category counts towards the prompt side (the rest is the answer side)."""
    return category == "input" or category.endswith("_input") or category.startswith("cache_write")


def is_name(word: str) -> bool:
    """Whether a word can be the name of a category or a count."""
    return _NAME.fullmatch(word) is not None


def tidied(tokens: Mapping[str, int]) -> Mapping[str, int]:
    """The tokens under names that are names, and not too many of them: the words for modalities and
    lifetimes are the vendors' own. What falls out counts as plain input or output.
    """
    if len(tokens) <= _MAX_CATEGORIES and all(map(is_name, tokens)):
        return tokens
    kept: dict[str, int] = {}
    for name, count in tokens.items():
        is_kept = is_name(name) and len(kept) < _MAX_CATEGORIES
        side = "input" if is_input(name) else "output"
        key = name if is_kept else side
        kept[key] = kept.get(key, 0) + count
    return kept


def canonical(category: str) -> str:
    """The name used here for a category written in camel case, as the Node library stores it.

    >>> canonical("cachedInput")
    'cached_input'
    """
    return _CAMEL.sub("_", category).lower()
