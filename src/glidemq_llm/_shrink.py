"""Making a call smaller: how much of its answer a budget has room for, and how its API is told."""

from __future__ import annotations

from collections.abc import Mapping
from math import floor
from typing import Any, Final

from glidemq_core.errors import BudgetExceeded
from glidemq_llm._read import fields

_INSIDE: Final = {"gemini": "config", "ollama": "options", "bedrock": "inferenceConfig"}
_NAMES: Final = {
    "openai.responses": ("max_output_tokens",),
    "gemini": ("max_output_tokens", "maxOutputTokens"),
    "ollama": ("num_predict",),
    "bedrock": ("maxTokens",),
}
_NANO: Final = 10**9
_NEW: Final = ("max_completion_tokens", "max_tokens")
_OLD: Final = ("max_tokens", "max_completion_tokens")


def output_that_fits(refusal: BudgetExceeded, output: int, *, weight: float, price: float) -> int:
    """How many output tokens a refused call may have at most; 0 if fewer of them would not help.

    Args:
        output: How many it asked for.
        weight: What the budget counts for one of them.
        price: What one costs, in nano-units.
    """
    per_token = {
        "total_tokens": weight,
        "tokens.output": 1.0,
        "cost.total": price,
        "cost.output": price,
    }
    one = per_token.get(refusal.cap, 0.0)
    if one <= 0:
        return 0
    missing = refusal.asked - (refusal.limit - refusal.used - refusal.reserved)
    if refusal.cap.startswith("cost."):
        missing *= _NANO
    # The figures are rounded: what is refused once more has to become smaller all the same.
    return max(0, min(floor(output - int(missing) / one), output - 1))


def limited_to(
    request: Mapping[str, Any], limit: int, *, api: str, provider: str
) -> dict[str, Any]:
    """The arguments that limit a request's answer, under the name that its API has for that."""
    names = _NAMES.get(api) or (_NEW if provider in ("openai", "azure") else _OLD)
    outer = _INSIDE.get(api)
    held: Any = request if outer is None else request.get(outer)
    known = fields(held)
    name = next((name for name in names if known.get(name) is not None), names[0])
    if outer is None:
        return {name: limit}
    changed: object = (
        held.model_copy(update={name: limit})
        if hasattr(held, "model_copy")
        else {**known, name: limit}
    )
    return {outer: changed}
