"""Price tables: what a model's tokens cost, from three sources in one form.

A `RateCard` has US dollars per million tokens by category and per piece by count. The sources are
the user's overrides, `genai-prices` (imported at the first question, if installed), and the JSON
that ships inside `litellm` (read as a file: importing litellm takes seconds and asks the network).
Tables disagree with each other and lag behind the vendors, so a cost from them is an estimate and
an override always wins.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import time
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

Number = Decimal | int | float | str

_LITELLM_FILE = "model_prices_and_context_window_backup.json"

# Servers of one's own: a hosted price for the same weights would be made up.
LOCAL_PROVIDERS = frozenset(
    {"ollama", "llama.cpp", "llamacpp", "vllm", "local", "lmstudio", "sglang", "tgi"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Whose price is asked for.

    Attributes:
        prompt_tokens: The prompt in full; long prompts have their own tiers.
        tier: Service tier as answered ("flex", "priority", "batch", ...).
        speed: "fast" where a faster mode has a price of its own.
    """

    model: str
    provider: str | None = None
    prompt_tokens: int = 0
    tier: str | None = None
    speed: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RateCard:
    """Prices of one model.

    Attributes:
        tokens: US dollars per million tokens, by category.
        pieces: US dollars apiece, by count ("web_search_requests", "pages", ...; "requests" is the
            call itself).
        source: Which table it is from.
        is_tiered: Whether the asked tier and speed are in these prices already.
    """

    tokens: Mapping[str, Decimal]
    pieces: Mapping[str, Decimal] = field(default_factory=dict[str, Decimal])
    source: str = "override"
    is_tiered: bool = False


def is_local(question: Question) -> bool:
    """Whether the model runs on a server of one's own, by its provider or the first part of its name."""
    names = {question.provider or "", question.model.partition("/")[0]}
    return not LOCAL_PROVIDERS.isdisjoint(names)


def references(question: Question) -> Iterator[tuple[str | None, str]]:
    """The (provider, model) pairs under which a table may know a model, the most specific first."""
    head, slash, rest = question.model.partition("/")
    yield question.provider, question.model
    if slash:
        yield head, rest
        yield None, rest
    if question.provider:
        yield None, question.model


def override_card(
    overrides: Mapping[str, Mapping[str, Number]], question: Question
) -> RateCard | None:
    """The override for a model: its full name, `provider/model`, or the longest prefix of either."""
    names = {question.model, question.model.partition("/")[2] or question.model}
    if question.provider:
        names.add(f"{question.provider}/{question.model}")
    fitting = [key for key in overrides if any(name.startswith(key.rstrip("*")) for name in names)]
    if not fitting:
        return None
    best = max(fitting, key=lambda key: (key in names, len(key)))
    prices = {name: Decimal(str(price)) for name, price in overrides[best].items()}
    # One namespace for both: the grammar of categories tells tokens from pieces where it matters.
    return RateCard(tokens=prices, pieces=prices, source="override")


_GENAI_TOKENS = {
    "input": ("input_text_mtok", "input_mtok"),
    "cached_input": ("cache_text_read_mtok", "cache_read_mtok"),
    "cache_write": ("cache_write_5m_mtok", "cache_write_mtok"),
    "cache_write_1h": ("cache_write_1h_mtok",),
    "tool_input": ("input_tool_mtok",),
    "audio_input": ("input_audio_mtok",),
    "image_input": ("input_image_mtok",),
    "video_input": ("input_video_mtok",),
    "cached_audio_input": ("cache_audio_read_mtok",),
    "cached_image_input": ("cache_image_read_mtok",),
    "cached_video_input": ("cache_video_read_mtok",),
    "output": ("output_text_mtok", "output_mtok"),
    "reasoning": ("output_reasoning_mtok",),
    "citation": ("output_citation_mtok",),
    "audio_output": ("output_audio_mtok",),
    "image_output": ("output_image_mtok",),
    "video_output": ("output_video_mtok",),
}
# Its field, and how many of our pieces its price is for.
_GENAI_PIECES = (
    ("requests", "requests_kcount", 1000),
    ("web_search_requests", "web_searches_kcount", 1000),
    ("search_queries", "web_searches_kcount", 1000),
    ("search_units", "rerank_searches_kcount", 1000),
    ("pages", "input_document_kpages", 1000),
    ("audio_seconds", "audio_hours", 3600),
    ("audio_seconds", "input_audio_hours", 3600),
)
_GENAI_PROVIDERS = {
    "gemini": "google",
    "vertex": "google",
    "vertex_ai": "google",
    "google-gemini": "google",
    "google-vertex": "google",
    "bedrock": "aws",
    "aws-bedrock": "aws",
    "azure-openai": "azure",
    "azure_ai": "azure",
    "xai": "x-ai",
    "together_ai": "together",
    "fireworks_ai": "fireworks",
    "moonshot": "moonshotai",
    "voyage": "voyageai",
}


def genai_provider(provider: str | None) -> str | None:
    """A provider's name in `genai-prices`."""
    return _GENAI_PROVIDERS.get(provider or "", provider)


def genai_card(question: Question) -> RateCard | None:
    """The price by `genai-prices`; None if it is not installed or does not know the model."""
    if is_local(question) or not has_genai_prices():
        return None
    context = _genai_context(question)
    hour = int(time.time() // 3600)  # prices have dates, some vendors' even hours
    for provider, model in references(question):
        known = genai_provider(provider)
        price = _genai_price(known, model, context, hour)
        if price is not None:
            is_tiered = bool(context) and price != _genai_price(known, model, (), hour)
            return _genai_rates(price, question.prompt_tokens, is_tiered=is_tiered)
    return None


@lru_cache(maxsize=1)
def has_genai_prices() -> bool:
    """Whether the package is installed; it is not imported to find out."""
    return importlib.util.find_spec("genai_prices") is not None


def _genai_context(question: Question) -> tuple[tuple[str, str], ...]:
    tier = (question.tier or "").removeprefix("on_demand_")
    context: list[tuple[str, str]] = []
    if tier == "batch":
        context.append(("processing", "batch"))
    elif tier in ("flex", "priority", "fast"):
        context.append(("service_tier", tier))
    if question.speed == "fast":
        context.append(("speed", "fast"))
    return tuple(context)


@lru_cache(maxsize=512)
def _genai_price(
    provider: str | None, model: str, context: tuple[tuple[str, str], ...], _hour: int
) -> Any:
    """Its price object for a model, or None. `_hour` is there for the cache to notice dated prices."""
    import genai_prices  # a quarter of a second: only at the first question

    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", UserWarning
            )  # about keys of newer data than its own code
            found = genai_prices.calc_price(
                genai_prices.Usage(input_tokens=1, output_tokens=1),
                model,
                provider_id=provider,
                price_context=dict(context) or None,
            )
    except (LookupError, ValueError):
        return None
    return found.model_price


def _genai_rates(price: Any, prompt_tokens: int, *, is_tiered: bool) -> RateCard:
    def rate(name: str) -> Decimal | None:
        value: Any = getattr(price, name, None)
        tiers: list[Any] | None = getattr(value, "tiers", None)
        if tiers is None:
            return value
        # Beyond a threshold the dearer rate is for all tokens, not only for those beyond it.
        passed = [tier.price for tier in tiers if prompt_tokens > tier.start]
        return passed[-1] if passed else value.base

    tokens: dict[str, Decimal] = {}
    for category, names in _GENAI_TOKENS.items():
        found = next((value for name in names if (value := rate(name)) is not None), None)
        if found is not None:
            tokens[category] = found
    pieces: dict[str, Decimal] = {}
    for count, name, per in _GENAI_PIECES:
        apiece = rate(name)
        if apiece is not None:
            pieces[count] = apiece / per
    return RateCard(tokens=tokens, pieces=pieces, source="genai-prices", is_tiered=is_tiered)


_LITELLM_TOKENS = {
    "input": "input_cost_per_token",
    "cached_input": "cache_read_input_token_cost",
    "cache_write": "cache_creation_input_token_cost",
    "cache_write_1h": "cache_creation_input_token_cost_above_1hr",
    "audio_input": "input_cost_per_audio_token",
    "image_input": "input_cost_per_image_token",
    "video_input": "input_cost_per_video_token",
    "cached_audio_input": "cache_read_input_audio_token_cost",
    "output": "output_cost_per_token",
    "reasoning": "output_cost_per_reasoning_token",
    "citation": "citation_cost_per_token",
    "audio_output": "output_cost_per_audio_token",
    "image_output": "output_cost_per_image_token",
}
_LITELLM_PIECES = {
    "search_units": "input_cost_per_query",
    "audio_seconds": "input_cost_per_second",
    "pages": "ocr_cost_per_page",
}
_LITELLM_PROVIDERS = {
    "google": "gemini",
    "google-gemini": "gemini",
    "google-vertex": "vertex_ai",
    "aws-bedrock": "bedrock",
    "azure-openai": "azure",
    "together": "together_ai",
    "fireworks": "fireworks_ai",
}
_LITELLM_THRESHOLDS = (
    (512_000, "512k"),
    (272_000, "272k"),
    (256_000, "256k"),
    (200_000, "200k"),
    (128_000, "128k"),
)


def litellm_card(question: Question, path: Path | None = None) -> RateCard | None:
    """The price by LiteLLM's table; None if there is no table or it does not know the model.

    Args:
        question: Whose price.
        path: A table of the same form to read instead of the installed one.
    """
    entry = None if is_local(question) else litellm_entry(question, path)
    return None if entry is None else _litellm_rates(entry, question)


def litellm_entry(question: Question, path: Path | None = None) -> Mapping[str, Any] | None:
    """What LiteLLM's table says of a model; None if there is no table or it does not know the model."""
    table = _litellm_table(path)
    for provider, model in references(question):
        known = _LITELLM_PROVIDERS.get(provider or "", provider)
        for name in (f"{known}/{model}" if known else model, model):
            entry = table.get(name)
            if isinstance(entry, Mapping):
                return cast("Mapping[str, Any]", entry)
    return None


def _litellm_table(path: Path | None) -> Mapping[str, Any]:
    if path is None:
        loaded: object = getattr(sys.modules.get("litellm"), "model_cost", None)
        if isinstance(loaded, dict):
            return cast("dict[str, Any]", loaded)
        path = _litellm_file()
    return _read_table(path) if path else {}


@lru_cache(maxsize=1)
def _litellm_file() -> Path | None:
    spec = importlib.util.find_spec("litellm")  # finds it without running it
    folders = spec.submodule_search_locations if spec else None
    found = [Path(folder) / _LITELLM_FILE for folder in folders or ()]
    return next((file for file in found if file.is_file()), None)


@lru_cache(maxsize=4)
def _read_table(path: Path) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", json.loads(path.read_text("utf-8"), parse_float=Decimal))


def _litellm_rates(entry: Mapping[str, Any], question: Question) -> RateCard:
    tier = (question.tier or "").removeprefix("on_demand_")
    suffix = {
        "flex": "_flex",
        "priority": "_priority",
        "fast": "_priority",
        "batch": "_batches",
    }.get(tier, "")
    long = [
        f"_above_{name}_tokens"
        for limit, name in _LITELLM_THRESHOLDS
        if question.prompt_tokens > limit
    ]
    is_tiered = False
    tokens: dict[str, Decimal] = {}
    for category, key in _LITELLM_TOKENS.items():
        for name in (
            *(key + end + suffix for end in long),
            *(key + end for end in long),
            key + suffix,
            key,
        ):
            price = _decimal(entry.get(name))
            if price is not None:
                tokens[category] = price * 10**6
                is_tiered |= bool(suffix) and name.endswith(suffix)
                break
    pieces = {
        count: price
        for count, key in _LITELLM_PIECES.items()
        if (price := _decimal(entry.get(key))) is not None
    }
    search = entry.get("search_context_cost_per_query")
    if isinstance(search, Mapping):
        price = _decimal(cast("Mapping[str, Any]", search).get("search_context_size_medium"))
        if price is not None:
            pieces["web_search_requests"] = price
    return RateCard(tokens=tokens, pieces=pieces, source="litellm", is_tiered=is_tiered)


def _decimal(value: object) -> Decimal | None:
    if isinstance(value, bool) or not isinstance(value, (int, float, Decimal)):
        return None
    return value if isinstance(value, Decimal) else Decimal(str(value))
