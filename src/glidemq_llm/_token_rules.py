"""Counting tokens without a vocabulary, and what vendors' tokenizers and wrappings add. As of
2026-11.

The rule knows how modern vocabularies treat classes of characters. Against the o200k vocabulary it
stays within a sixth for prose and code, over-counts scripts that have become cheap (Cyrillic,
Indic), and is meant to be multiplied by a margin: an estimate that is too low lets a budget be
overrun.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from math import ceil
from typing import NamedTuple

# One branch per class; whitespace is free, because it is merged into the word that follows.
_CLASSES = re.compile(
    r"(?P<word>[A-Za-z]++(?![\u00c0-\u024f]))"
    r"|(?P<digits> ?[0-9]+)"  # a space is not merged into a number
    r"|(?P<accented>[A-Za-z\u00c0-\u024f]+)"
    r"|(?P<cjk>[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff])"
    r"|(?P<cyrillic>[\u0370-\u052f]+)"
    r"|(?P<emoji>[\u2600-\u27bf\u2b00-\u2bff\U0001f000-\U0001faff])"
    r"|(?P<punctuation>[!-/:-@\[-`{-~\u2000-\u206f]+)"
    r"|(?P<lines>\n+)"
    r"|(?P<script>[^\W\d_]+)"
    r"|(?P<other>\S)"
)
# A run without spaces that mixes cases and digits is an id, a hash or base64: hardly anything in it
# merges.
_RANDOM = re.compile(
    r"(?=[A-Za-z0-9+/_-]*[0-9])(?=[A-Za-z0-9+/_-]*[A-Za-z])[A-Za-z0-9+/_-]{16,}|[0-9]{12,}"
)
_MIXED = re.compile(r"[A-Z][a-z]*[0-9]|[0-9][A-Za-z]|[a-z][A-Z]")

_WORD_LETTERS = 5.2
_ACCENTED_LETTERS = 3.8
_SCRIPT_LETTERS = 3.2
_RANDOM_CHARACTERS = 1.5


def count_by_rule(text: str) -> float:
    """About how many tokens of a modern vocabulary a text has. No margin is included."""
    tokens = 0.0
    ordinary = text
    if len(text) >= 12:  # shorter texts hold no run worth looking for
        ordinary, random_characters = _without_random(text)
        tokens = random_characters / _RANDOM_CHARACTERS
    for found in _CLASSES.finditer(ordinary):
        kind = found.lastgroup
        length = found.end() - found.start()
        if kind == "word":
            tokens += 1 if length <= _WORD_LETTERS else length / _WORD_LETTERS
        elif kind == "punctuation":
            tokens += 0.55 * length if length > 1 else 0.8
        elif kind == "digits":
            tokens += 1 + (length + 1) // 3 if found[0][0] == " " else (length + 2) // 3
        else:
            tokens += _rare(kind, length)
    return tokens


def _rare(kind: str | None, length: int) -> float:
    match kind:
        case "cjk":
            return 0.75
        case "lines":
            return 0.5
        case "emoji":
            return 2.2
        case "other":
            return 1.0
        case "accented":
            return max(1.0, length / _ACCENTED_LETTERS)
        case _:
            return max(1.0, length / _SCRIPT_LETTERS)


def _without_random(text: str) -> tuple[str, int]:
    """The text without its random-looking runs, and how many characters those had."""
    removed = 0

    def drop(found: re.Match[str]) -> str:
        nonlocal removed
        run = found[0]
        if len(_MIXED.findall(run)) * 8 < len(run):
            return run  # a long identifier made of words
        removed += len(run)
        return " "

    return _RANDOM.sub(drop, text), removed


class Family(NamedTuple):
    """How one family of models counts.

    Attributes:
        factor: Its tokens per token of the o200k vocabulary.
        call, message: Tokens added per call and per message.
        tools: Tokens added once if there are tools.
        tool_factor: Tokens per token of the tools' compact JSON.
    """

    name: str
    factor: float
    call: int = 3
    message: int = 4
    tools: int = 110
    tool_factor: float = 1.2


_OPENAI = Family("openai", 1.0)
_CLAUDE = Family("anthropic", 1.5, call=15, tools=650)
_CLAUDE_OLD = Family("anthropic", 1.2, call=15, tools=650)
_OTHER = Family("other", 1.15)

# By model name, the first that is found in it; then by provider.
_BY_MODEL: tuple[tuple[re.Pattern[str], Family], ...] = (
    (re.compile(r"claude-(2|3|instant|(opus|sonnet|haiku)-4-(\d{8}|[0-5]\b))"), _CLAUDE_OLD),
    (re.compile(r"claude"), _CLAUDE),
    (re.compile(r"\b(gpt|chatgpt|o[134]|codex|davinci|text-embedding)\b"), _OPENAI),
    (re.compile(r"gemini|gemma"), Family("google", 1.1)),
    (
        re.compile(r"mi[sx]tral|codestral|ministral|magistral|devstral|pixtral|voxtral"),
        Family("mistral", 1.15),
    ),
    (re.compile(r"deepseek|qwen|kimi|glm"), Family("other", 1.1)),
    (re.compile(r"smollm|phi|tinyllama"), Family("other", 1.25)),
)
_BY_PROVIDER = {
    "openai": _OPENAI,
    "azure": _OPENAI,
    "anthropic": _CLAUDE,
    "google": Family("google", 1.1),
    "gemini": Family("google", 1.1),
}


def family_of(model: str | None, provider: str | None = None) -> Family:
    """The family of a model; a cautious guess for one that is not known."""
    name = (model or "").lower()
    for pattern, family in _BY_MODEL:
        if pattern.search(name):
            return family
    return _BY_PROVIDER.get((provider or "").lower(), _OTHER)


def count_all(texts: Iterable[str]) -> int:
    """The rule over several texts, rounded up."""
    return ceil(sum(count_by_rule(text) for text in texts))
