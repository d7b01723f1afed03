"""What a model call used, in one form for every vendor.

`normalize_usage` reads a whole response or a recorded list of stream events; `UsageAccumulator` is
fed the events of a running stream. How each vendor's figures become disjoint categories is in
`_usage_shapes`; where the figures are found in a response, how events merge, and when they count as
complete is here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from math import inf
from typing import Any, Final, Literal, cast

from glidemq_llm import _usage_facts as facts
from glidemq_llm._read import fields, items, plain, text
from glidemq_llm._usage_shapes import Context, Part, Tokens, merged, split_timings, split_tokens
from glidemq_llm.categories import is_input, tidied

Status = Literal["complete", "partial", "missing"]
Source = Literal["provider", "estimated", "mixed"]

_MAX_NAME: Final = 200  # of a model; it becomes part of keys

_NO_TOKENS: Mapping[str, int] = {}
_NO_COUNTS: Mapping[str, int | float] = {}
_NO_DETAILS: Mapping[str, object] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What one model call used.

    Attributes:
        tokens: Tokens by category (see `glidemq_llm.categories`). The categories are disjoint:
            their sum is `total_tokens`. Empty categories are left out.
        counts: What is billed by the piece: web_search_requests, search_units, audio_seconds,
            pages, ...
        billed: The invoiced tokens {input, output}, where the vendor says they differ from the
            processed ones.
        provider_cost: US dollars stated by the vendor. It beats every price table.
        parts: The tokens by model, where more than one model worked on the answer.
        status: "complete": the vendor stated it. "partial": the stream ended early and only some
            figures are known. "missing": nothing was stated. The last two must be estimated
            (`with_estimate`), never taken as 0.
        source: Where the tokens come from: "provider", "estimated", or "mixed".
        model, provider: Who answered; `requested_model` is who was asked, where that is known to
            the caller.
        service_tier, speed: What the price depends on besides the model.
        details: The vendor's own usage object, for reading and for debugging; bounded in size.
    """

    tokens: Mapping[str, int] = field(default_factory=lambda: _NO_TOKENS)
    counts: Mapping[str, int | float] = field(default_factory=lambda: _NO_COUNTS)
    billed: Mapping[str, int] | None = None
    provider_cost: Decimal | None = None
    parts: Sequence[tuple[str | None, Mapping[str, int]]] | None = None
    status: Status = "complete"
    source: Source = "provider"
    model: str | None = None
    requested_model: str | None = None
    provider: str | None = None
    operation: str | None = None
    service_tier: str | None = None
    speed: str | None = None
    details: Mapping[str, object] = field(default_factory=lambda: _NO_DETAILS, repr=False)

    @property
    def total_tokens(self) -> int:
        """All tokens, billed at whatever rate."""
        return sum(self.tokens.values())

    @property
    def input_tokens(self) -> int:
        """The prompt side in full: cached tokens and cache writes included."""
        return sum(count for category, count in self.tokens.items() if is_input(category))

    @property
    def output_tokens(self) -> int:
        """The answer side in full: reasoning included."""
        return self.total_tokens - self.input_tokens

    def with_estimate(self, *, input: int, output: int, reasoning: int = 0) -> Usage:
        """This usage with what the vendor did not state filled in; itself if it is complete.

        Args:
            input: Estimated prompt tokens; used if no prompt figure is known.
            output: Tokens counted in the text that was received. A running total of the vendor is
                kept where it is higher.
            reasoning: The same for the thinking that was received.
        """
        if self.status == "complete":
            return self
        tokens = dict(self.tokens)
        if not self.input_tokens and input:
            tokens["input"] = input
        if self.output_tokens < output + reasoning:
            tokens = {category: count for category, count in tokens.items() if is_input(category)}
            tokens |= {
                name: count
                for name, count in (("output", output), ("reasoning", reasoning))
                if count
            }
        source: Source = "mixed" if self.tokens else "estimated"
        return dataclasses.replace(self, tokens=tokens, source=source, parts=None)

    def as_dict(self) -> dict[str, object]:
        """The usage as JSON-ready values, without `details`; None and empty fields are left out."""
        values: dict[str, object] = {"tokens": dict(self.tokens), "total_tokens": self.total_tokens}
        if self.counts:
            values["counts"] = dict(self.counts)
        if self.parts:
            values["parts"] = [[model, dict(tokens)] for model, tokens in self.parts]
        if self.provider_cost is not None:
            values["provider_cost"] = format(self.provider_cost, "f")
        for name in (
            "billed",
            "status",
            "source",
            "model",
            "requested_model",
            "provider",
            "service_tier",
            "speed",
        ):
            value = getattr(self, name)
            if value is not None:
                values[name] = value
        return values


def normalize_usage(raw: object, provider: str | None = None) -> Usage:
    """Read the usage of a response.

    Args:
        raw: A response, a usage object or a decoded body (a dict or any SDK's object), or the list
            of a stream's events in order. A list that ends early gives `status` "partial" or
            "missing".
        provider: Who was asked, where known; it settles the few cases that the fields alone leave
            open.

    Nothing is raised for an unknown shape: the status is "missing" then.
    """
    accumulator = UsageAccumulator(provider=provider)
    if isinstance(raw, (list, tuple)):
        for event in cast("Sequence[object]", raw):
            accumulator.feed(event)
        return accumulator.result()
    accumulator.feed(raw)
    return accumulator.result(whole=True)


class UsageAccumulator:
    """Collects the usage of a running stream.

    Every event may be fed; one that says nothing about usage costs about a microsecond. Figures are
    merged field by field, a later one replacing an earlier one: streams repeat running totals, and
    none of them is an increment.

    >>> usage = UsageAccumulator()
    >>> usage.feed({"type": "message_start", "message": {"usage": {"input_tokens": 11}}})
    >>> usage.feed({"type": "message_delta", "usage": {"output_tokens": 6}})
    >>> dict(usage.result().tokens)
    {'input': 11, 'output': 6}
    """

    def __init__(self, *, provider: str | None = None) -> None:
        self.provider = provider
        self._usage: dict[str, Any] = {}
        self._facts: dict[str, Any] = {}
        self._searches = 0
        self._has_begun = False
        self._is_running = False  # the last usage was a running total, not the closing figure
        self._is_finished = False
        self._has_cursor = (
            False  # Anthropic: the output figure is still the placeholder of message_start
        )

    def feed(self, event: object) -> None:
        """Take in one stream event or one whole response (dict or object)."""
        top = fields(event)
        if "data" in top and len(top) == 1:  # the Mistral SDK's envelope
            top = fields(top["data"])
        if self._has_begun and facts.is_quiet(top):
            return
        self._has_begun = True  # the first event names the model, so it is always read
        self._take(top)

    def result(self, *, whole: bool = False) -> Usage:
        """The usage so far; may be called at any time, and again.

        Args:
            whole: What was fed was one whole response, not a stream: it is complete as it is.
        """
        context = Context(
            model=self._facts.get("model"),
            provider=self.provider,
            timings=fields(self._facts.get("timings")),
            breakdown=fields(self._facts.get("usage_breakdown")),
        )
        parts = split_tokens(self._usage_as_known(), context) or split_timings(context.timings)
        counts = facts.counts(self._usage, self._searches)
        status = self._status(tokens=parts is not None, counts=bool(counts), whole=whole)
        tokens = tidied(merged(*(part for _, part in parts or ())))
        return Usage(
            tokens=tokens,
            counts=counts if status != "missing" else _NO_COUNTS,
            billed=facts.billed(self._usage),
            # A vendor that states running totals states a running cost as well: it is not the bill.
            provider_cost=facts.stated_cost(self._usage) if status == "complete" else None,
            parts=_named_parts(parts, context.model),
            status=status,
            model=context.model,
            provider=self.provider,
            service_tier=facts.service_tier(self._usage, self._facts.get("service_tier")),
            speed=text(self._usage.get("speed")),
            details=facts.bounded(self._usage),
        )

    def _take(self, top: Mapping[str, Any]) -> None:
        kind = top.get("type")
        for key in facts.BESIDE:
            value = top.get(key)
            if value:
                self._facts[key] = plain(value)
        if kind == "response.output_item.done":
            self._searches += facts.is_search(fields(top.get("item")))
        self._is_finished |= facts.is_finished(top)
        found = False
        for holder in facts.holders(top):
            self._take_beside(holder)
            for stated in facts.stated_in(holder):
                found = True
                _merge(self._usage, plain(stated))
        if not found and (bare := facts.bare_usage(top)):
            found = True
            _merge(self._usage, plain(bare))
        if found:
            self._is_running = facts.is_running_total(top)
        if kind == "message_start":
            self._has_cursor = True
        elif kind == "message_delta" and found:
            self._has_cursor = self._has_cursor and not facts.states_output(top)
            self._is_running = facts.is_open_delta(top)

    def _take_beside(self, holder: Mapping[str, Any]) -> None:
        for key in ("model", "modelVersion", "model_version"):
            name = text(holder.get(key))
            if name:
                self._facts["model"] = name[:_MAX_NAME]
        tier = holder.get("service_tier") or holder.get("serviceTier")
        if tier:
            self._facts["service_tier"] = plain(tier)
        searches = sum(facts.is_search(fields(item)) for item in items(holder.get("output")))
        self._searches = max(self._searches, searches)

    def _usage_as_known(self) -> Mapping[str, Any]:
        if not self._has_cursor:
            return self._usage
        # A handful of tokens that stand for "started"; taking it as output has been a known way to
        # undercharge.
        return {
            key: value
            for key, value in self._usage.items()
            if key not in ("output_tokens", "iterations")
        }

    def _status(self, *, tokens: bool, counts: bool, whole: bool) -> Status:
        if not tokens and not counts:
            return "missing"
        if self._has_cursor:
            return "partial"
        if whole:
            return "complete"
        needs_finish = self._is_running or not tokens or facts.is_gemini(self._usage)
        return "partial" if needs_finish and not self._is_finished else "complete"


def _named_parts(
    parts: list[Part] | None, model: str | None
) -> list[tuple[str | None, Mapping[str, int]]] | None:
    if parts is None or len(parts) == 1:
        return None
    return [(_short(name) or model, tidied(tokens)) for name, tokens in parts if tokens]


def _short(name: str | None) -> str | None:
    return name[:_MAX_NAME] if name else None


def _merge(into: dict[str, Any], news: Mapping[str, Any]) -> None:
    """Later values replace earlier ones, field by field; null says nothing, nor do negatives, NaN and infinities."""
    for key, value in news.items():
        if value is None or (isinstance(value, (int, float)) and not 0 <= value < inf):
            continue
        known = into.get(key)
        if isinstance(value, dict) and isinstance(known, dict):
            _merge(cast("dict[str, Any]", known), cast("dict[str, Any]", value))
        else:
            into[key] = value


__all__ = ["Source", "Status", "Tokens", "Usage", "UsageAccumulator", "normalize_usage"]
