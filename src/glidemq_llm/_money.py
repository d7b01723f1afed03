"""What a metered call holds of money before it is sent, and what it has cost in the end."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Final

from glidemq_core._units import Money
from glidemq_llm._rates import LOCAL_PROVIDERS
from glidemq_llm.pricing import Cost, Pricing
from glidemq_llm.usage import Usage

logger = logging.getLogger("glidemq_llm")

_NOTHING: Final = {"total": 0}


def costs_to_hold(pricing: Pricing, usage: Usage) -> Mapping[str, Money] | None:
    """What a call may cost, by name; None if nobody knows: a budget that caps money then refuses it.

    Raises:
        UnpricedModel: Nobody knows, and the policy is to refuse.
    """
    cost = pricing.quote(usage)
    if cost is not None:
        return cost.as_costs()
    if usage.provider in LOCAL_PROVIDERS:
        return _NOTHING  # nobody sends a bill
    is_allowed = pricing.on_unpriced == "allow"
    _tell(usage.provider, usage.model, "don't hold" if is_allowed else "refuse")
    return _NOTHING if is_allowed else None


@cache  # once for each model
def _tell(provider: str | None, model: str | None, fate: str) -> None:
    logger.warning(
        "no price is known for %s/%s: caps on money %s its calls (install glidemq-llm[prices], or give Pricing overrides)",
        provider,
        model,
        fate,
    )


def cost_of(pricing: Pricing, usage: Usage, *, asked: str) -> Cost | None:
    """What a call has cost; None if nobody knows.

    Args:
        asked: The model it was sent to: who answers may call itself by a name that no table knows.
    """
    if not usage.tokens and usage.provider_cost is None:
        return None
    as_asked = replace(usage, model=None, parts=None, requested_model=asked or None)
    return pricing.cost(usage) or pricing.cost(as_asked)
