"""How many tokens a call will use, told before it is sent, and how many came back when nobody says.

An estimate is for reserving budget and throttle: the settling figure replaces it. So it must not
cost a network call, must not stand in the way (a microsecond per word at most), and should rather
be too high than too low.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any, Final, Literal

from glidemq_llm._images import medium_tokens
from glidemq_llm._read import LARGEST_COUNT, text
from glidemq_llm._request import (
    Prompt,
    choices,
    has_no_answer,
    output_limit,
    read_prompt,
    thinking_budget,
)
from glidemq_llm._token_rules import Family, count_all, count_by_rule, family_of
from glidemq_llm._vocabulary import Encoding, encoding_for, prefetch

Confidence = Literal["exact", "good", "rough"]

DEFAULT_OUTPUT = 1024
_MAX_MODELS = 1000
_FEW_ANSWERS = 10
_RECENT_ANSWERS = 60
_RULE_MARGIN = 1.15
_MAX_EXACT = 400_000  # characters; beyond, the rest is taken to be like the beginning


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What a call is expected to use.

    Attributes:
        input: Prompt tokens.
        output_max: Tokens of the answer to reserve, over all its choices.
        confidence: "exact": the vendor's own vocabulary counted plain text. "good": counted with a
            vocabulary, but tools, media or another vendor's factor are estimated. "rough": by
            classes of characters.
        base: The prompt tokens before a learned correction; what `Corrections.learn` compares with.
    """

    input: int
    output_max: int
    confidence: Confidence = "rough"
    base: int = 0

    @property
    def total(self) -> int:
        """Everything to reserve."""
        return self.input + self.output_max


Counter = Callable[[Mapping[str, Any]], "Estimate | int | None"]


def estimate_tokens(
    request: Mapping[str, Any],
    *,
    provider: str | None = None,
    counter: Counter | None = None,
    expected_output: int | None = None,
    default_output: int = DEFAULT_OUTPUT,
    corrections: Corrections | None = None,
) -> Estimate:
    """Estimate a call from the arguments it will be made with.

    Args:
        request: The arguments of the SDK's call or the job's data, in any vendor's form:
            `messages`, `input`, `contents` or `prompt`, with `model`, `tools`, `max_tokens` and so
            on.
        provider: Who will be asked; by default told from the model's name.
        counter: Asked first: a function of the request that returns prompt tokens or a whole
            estimate, or None to leave it to the built-in ways.
        expected_output: A learned length of answers, for requests that set no limit.
        default_output: What to reserve for an answer if neither is known. The model's own maximum
            would be safe and useless: it blocks every budget.
        corrections: What earlier calls have taught about the model.
    """
    own = counter(request) if counter is not None else None
    if isinstance(own, Estimate):
        return own
    model = text(request.get("model")) or ""
    family = family_of(model, provider)
    output_max = min(_output(request, expected_output or default_output), LARGEST_COUNT)
    if own is not None:
        return Estimate(input=own, output_max=output_max, confidence="exact", base=own)
    prompt = read_prompt(request)
    base, confidence = _input(prompt, family, model)
    factor = corrections.factor(model) if corrections is not None else 1.0
    return Estimate(
        input=ceil(base * factor), output_max=output_max, confidence=confidence, base=base
    )


def count_text(written: str, model: str | None = None, provider: str | None = None) -> int:
    """Tokens of a text as the model counts them, as well as can be told: for answers whose usage
    never came.
    """
    if not written:
        return 0
    family = family_of(model, provider)
    encoding = encoding_for(model or "")
    if encoding is not None:
        return ceil(_encoded(encoding, written) * family.factor)
    return max(1, ceil(count_by_rule(written) * family.factor))


class ReceivedCounter:
    """Counts what arrives over a stream, by kind. Adding costs next to nothing; counting happens on
    demand.
    """

    def __init__(self, model: str | None = None, provider: str | None = None) -> None:
        self.model = model
        self.provider = provider
        self._pending: dict[str, list[str]] = {}
        self._counted: dict[str, int] = {}

    def add(self, piece: str, kind: str = "output") -> None:
        """Note a piece of text; `kind` is the token category ("output", "reasoning")."""
        self._pending.setdefault(kind, []).append(piece)

    def counts(self) -> dict[str, int]:
        """Tokens by kind so far."""
        for kind, pieces in self._pending.items():
            if pieces:
                # Joined before counting: words that were cut between two pieces count once.
                tokens = count_text("".join(pieces), self.model, self.provider)
                self._counted[kind] = self._counted.get(kind, 0) + tokens
                pieces.clear()
        return dict(self._counted)

    def total(self) -> int:
        """Tokens of all kinds so far."""
        return sum(self.counts().values())


class Corrections:
    """What calls have taught about models: how far estimates of prompts are off, as an exponential
    average of actual over estimated, and how long answers usually are.

    Args:
        weight: How much the newest call counts, from 0 to 1.
        lowest, highest: Bounds of the factor; a single odd call must not make estimates useless.
    """

    def __init__(self, *, weight: float = 0.2, lowest: float = 0.5, highest: float = 3.0) -> None:
        self.weight = weight
        self.lowest = lowest
        self.highest = highest
        self._factors: dict[str, float] = {}
        self._answers: dict[str, deque[int]] = {}

    def factor(self, model: str) -> float:
        """What to multiply an estimate with; 1 for a model that nothing is known about."""
        return self._factors.get(model, 1.0)

    def learn(self, model: str, estimate: Estimate, actual: int) -> None:
        """Take in the actual prompt tokens of a call that was estimated."""
        if estimate.base <= 0 or actual <= 0:
            return
        ratio = min(self.highest, max(self.lowest, actual / estimate.base))
        known = self._factors.pop(model, None)
        if len(self._factors) >= _MAX_MODELS:
            del self._factors[next(iter(self._factors))]
        self._factors[model] = ratio if known is None else known + self.weight * (ratio - known)

    def usual_output(self, model: str) -> int | None:
        """What 19 of 20 answers were not longer than; None before there were some."""
        seen = sorted(self._answers.get(model, ()))
        return seen[ceil(0.95 * len(seen)) - 1] if len(seen) >= _FEW_ANSWERS else None

    def learn_output(self, model: str, tokens: int) -> None:
        """Take in the length of an answer that no limit has cut."""
        seen = self._answers.pop(model, None)
        if len(self._answers) >= _MAX_MODELS:
            del self._answers[next(iter(self._answers))]
        self._answers[model] = seen if seen is not None else deque(maxlen=_RECENT_ANSWERS)
        self._answers[model].append(tokens)


LEARNED: Final = Corrections()
"""What this process has learned."""


def _output(request: Mapping[str, Any], usual: int) -> int:
    if has_no_answer(request):
        return 0
    limit = output_limit(request)
    if limit is not None:
        return limit  # includes thinking: it is cut at the same limit
    return (usual + thinking_budget(request)) * choices(request)


def _input(prompt: Prompt, family: Family, model: str) -> tuple[int, Confidence]:
    encoding = encoding_for(model)
    if encoding is not None:
        words = sum(_encoded(encoding, written) for written in prompt.texts)
        tools = _encoded(encoding, prompt.tools) if prompt.tools else 0
    else:
        words = count_all(prompt.texts) * _RULE_MARGIN
        tools = count_by_rule(prompt.tools) * _RULE_MARGIN if prompt.tools else 0
    tokens = (words + tools * family.tool_factor) * family.factor
    tokens += family.tools if prompt.tools else 0
    tokens += sum(medium_tokens(medium, family.name, model) for medium in prompt.media)
    if prompt.messages:
        tokens += family.call + prompt.messages * family.message + prompt.names
    is_plain = not prompt.tools and not prompt.media
    if encoding is None:
        return ceil(
            tokens
        ) + prompt.ids, "exact" if prompt.ids and not prompt.texts and is_plain else "rough"
    return ceil(tokens) + prompt.ids, "exact" if is_plain and family.factor == 1.0 else "good"


def _encoded(encoding: Encoding, written: str) -> float:
    if len(written) <= _MAX_EXACT:
        return len(encoding.encode_ordinary(written))
    return len(encoding.encode_ordinary(written[:_MAX_EXACT])) * len(written) / _MAX_EXACT


__all__ = [
    "DEFAULT_OUTPUT",
    "LEARNED",
    "Confidence",
    "Corrections",
    "Counter",
    "Estimate",
    "ReceivedCounter",
    "count_text",
    "estimate_tokens",
    "prefetch",
]
