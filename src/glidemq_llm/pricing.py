"""What a call cost, or would cost.

Money is an integer of nano-dollars (10^-9 US dollars) everywhere it is added up, rounded up once
per call, and a `Decimal` where people see it. An unknown price is None, never 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Literal, get_args

from glidemq_core._units import from_nano, to_nano
from glidemq_core.errors import InvalidOption
from glidemq_llm._rates import Number, Question, RateCard, genai_card, litellm_card, override_card
from glidemq_llm.categories import is_input, price_fallback
from glidemq_llm.errors import UnpricedModel
from glidemq_llm.usage import Usage

_Policy = Literal["allow", "deny", "deny_capped"]
OnUnpriced = _Policy | Callable[[Usage], Number | None]

_MILLION = 10**6
_HALF = Decimal("0.5")
_LARGEST = (
    4_500_000  # dollars that a ledger takes of one call: a sum beyond is a mistake of the figures
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a call cost.

    Attributes:
        nano: Nano-dollars in all, rounded up.
        by_category: Nano-dollars by token category and count; they add up to `nano`. Empty where a
            vendor states only the sum.
        source: "provider" (the vendor stated it), "override", "genai-prices", "litellm" or
            "callable"; several joined by "+" where models of one answer were priced by different
            tables.
        unpriced: Counts (searches, pages, ...) that were used but have no price: the cost is a
            lower bound.
    """

    nano: int
    by_category: Mapping[str, int] = field(default_factory=dict[str, int])
    source: str = "override"
    unpriced: tuple[str, ...] = ()

    @property
    def total(self) -> Decimal:
        """US dollars."""
        return from_nano(self.nano)

    def as_costs(self) -> dict[str, str]:
        """US dollars as plain decimal text, by category and as "total": the form that jobs report."""
        costs = {name: format(from_nano(nano), "f") for name, nano in self.by_category.items()}
        return {**costs, "total": format(self.total, "f")}


class Pricing:
    """Prices calls.

    The first source that knows wins: the vendor's own statement, the overrides, `genai-prices`,
    LiteLLM's table.

    Args:
        overrides: US dollars per million tokens by model and category, for example
            `{"openai/gpt-5-mini": {"input": "0.25", "output": 2}}`. A key is a model,
            `provider/model`, or a prefix of either ("*" fits all); the longest that fits wins.
            Categories without a price of their own use that of their fallback (`cached_input` that
            of `input`, `reasoning` that of `output`). Counts such as "web_search_requests" are
            priced apiece, "requests" is the price of the call itself.
        on_unpriced: What to do about a call whose price is not known before it is sent.
            "deny_capped": refuse it where a budget caps money; elsewhere its cost is None. "allow":
            send it all the same, past caps on money: they count it only if its vendor states a
            cost. "deny": refuse it (`quote` raises). Or a function that is given the usage and
            returns US dollars, or None as for "deny_capped".
        litellm_prices: A file in the form of LiteLLM's price table, instead of the one inside an
            installed litellm.

    Raises:
        InvalidOption: A price is no amount of at least 0, or the policy is not known.
    """

    def __init__(
        self,
        overrides: Mapping[str, Mapping[str, Number]] | None = None,
        *,
        on_unpriced: OnUnpriced = "deny_capped",
        litellm_prices: Path | str | None = None,
    ) -> None:
        self.overrides = dict(overrides or {})
        for model, prices in self.overrides.items():
            for name, price in prices.items():
                to_nano(price, f"overrides[{model!r}][{name!r}]")
        if on_unpriced not in get_args(_Policy) and not callable(on_unpriced):
            words = ", ".join(map(repr, get_args(_Policy)))
            raise InvalidOption("on_unpriced", on_unpriced, f"not {words} or a function")
        self.on_unpriced = on_unpriced
        self.litellm_prices = Path(litellm_prices) if litellm_prices is not None else None

    def cost(self, usage: Usage, *, batch: bool = False) -> Cost | None:
        """What a finished call cost; None if no source knows a price.

        It never raises for an unknown price, whatever the policy: the money is spent and has to be
        booked.

        Args:
            usage: What the call used. An estimated usage is priced like a stated one.
            batch: The call ran in a vendor's batch interface, at half price where no batch price is
                known.
        """
        if usage.provider_cost is not None:
            return Cost(nano=to_nano(usage.provider_cost, "provider_cost"), source="provider")
        found = self._by_tables(usage, batch=batch or usage.service_tier == "batch")
        if found is None and callable(self.on_unpriced):
            usd = self.on_unpriced(usage)
            return (
                None if usd is None else Cost(nano=to_nano(usd, "on_unpriced"), source="callable")
            )
        return found

    def quote(self, usage: Usage, *, batch: bool = False) -> Cost | None:
        """What a call would cost, asked before it is sent.

        Raises:
            UnpricedModel: No source knows a price and the policy is "deny".
        """
        found = self.cost(usage, batch=batch)
        if found is None and self.on_unpriced == "deny":
            raise UnpricedModel(usage.model or usage.requested_model, provider=usage.provider)
        return found

    def _by_tables(self, usage: Usage, *, batch: bool) -> Cost | None:
        if not usage.tokens and not usage.counts and usage.billed is None:
            return None  # nothing is known about the call: that is not the same as free
        exact: dict[str, Decimal] = {}
        sources: list[str] = []
        unpriced: list[str] = []
        for index, (model, tokens) in enumerate(_billable(usage)):
            # Pieces belong to the answering model, which is the first part.
            counts = {**usage.counts, "requests": 1} if index == 0 else {}
            question = _question(usage, model, tokens, batch=batch)
            priced = self._part(question, tokens, counts) if question else None
            if priced is None:
                return None
            card, amounts = priced
            for name, usd in amounts.items():
                exact[name] = exact.get(name, Decimal(0)) + usd
            sources.append(card.source)
            unpriced += [name for name in counts if name not in card.pieces and name != "requests"]
        if sum(exact.values()) > _LARGEST:
            return None
        by_category = _rounded(exact)
        return Cost(
            nano=sum(by_category.values()),
            by_category=by_category,
            source="+".join(dict.fromkeys(sources)),
            unpriced=tuple(unpriced),
        )

    def _part(
        self, question: Question, tokens: Mapping[str, int], counts: Mapping[str, float]
    ) -> tuple[RateCard, dict[str, Decimal]] | None:
        """The exact cost of one model's part by the first table that prices all its tokens."""
        for card in self._cards(question):
            rates = {category: _rate(card.tokens, category) for category in tokens}
            known = {category: rate for category, rate in rates.items() if rate is not None}
            # Embeddings have no answer, and no price for one.
            lacks_one = any(n and category not in known for category, n in tokens.items())
            if lacks_one or not (card.tokens or card.pieces):
                continue
            halved = _HALF if question.tier == "batch" and not card.is_tiered else 1
            amounts = {
                category: rate * tokens[category] * halved / _MILLION
                for category, rate in known.items()
            }
            for name, count in counts.items():
                apiece = card.pieces.get(name)
                if apiece is not None:
                    amounts[name] = apiece * Decimal(str(count))
            if amounts:
                return card, amounts
        return None

    def _cards(self, question: Question) -> Iterator[RateCard]:
        """The tables in order; each is asked only if the one before did not know."""
        override = override_card(self.overrides, question)
        if override is not None:
            yield override
        known = genai_card(question)
        if known is not None:
            yield known
        listed = litellm_card(question, self.litellm_prices)
        if listed is not None:
            yield listed


def _billable(usage: Usage) -> list[tuple[str | None, Mapping[str, int]]]:
    """What is to be paid, by model: invoiced tokens where the vendor says they differ from the
    processed ones.
    """
    model = usage.model or usage.requested_model
    if usage.billed is not None:
        return [(model, {side: tokens for side, tokens in usage.billed.items() if tokens})]
    if usage.parts:
        return [(name or model, tokens) for name, tokens in usage.parts]
    return [(model, usage.tokens)]


def _question(
    usage: Usage, model: str | None, tokens: Mapping[str, int], *, batch: bool
) -> Question | None:
    if model is None:
        return None
    return Question(
        model=model,
        provider=usage.provider,
        prompt_tokens=sum(n for category, n in tokens.items() if is_input(category)),
        tier="batch" if batch else usage.service_tier,
        speed=usage.speed,
    )


def _rate(rates: Mapping[str, Decimal], category: str) -> Decimal | None:
    """The category's price, or that of the nearest category it falls back to."""
    name: str | None = category
    while name is not None:
        if name in rates:
            return rates[name]
        name = price_fallback(name)
    return None


def _rounded(exact: Mapping[str, Decimal]) -> dict[str, int]:
    """Whole nano-dollars by category whose sum is the exact sum, rounded up once."""
    out: dict[str, int] = {}
    running = Decimal(0)
    booked = 0
    for name, usd in exact.items():
        running += usd
        upto = to_nano(running, "cost")
        if upto > booked:
            out[name] = upto - booked
        booked = upto
    return out
