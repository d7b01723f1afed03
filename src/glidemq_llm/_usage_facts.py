"""Where vendors put their usage, and what stands beside it. Tables and small pure functions for
`usage`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal
from itertools import islice
from typing import Any, cast

from glidemq_llm._read import fields, first_number, items, number, text
from glidemq_llm.categories import is_name

USAGE_KEYS = ("usage", "usageMetadata", "usage_metadata", "usage_info")

# Containers one or two levels down that may hold a usage object, in reading order.
_HOLDERS = ("response", "message", "delta", "metadata", "x_groq", "result", "data")
_INNER = {"response": "body", "result": "message"}

# Kept from beside the usage: llama.cpp's counters, Groq's split by model.
BESIDE = ("timings", "usage_breakdown")

_BARE = [
    "prompt_tokens",
    "completion_tokens",
    "input_tokens",
    "output_tokens",
    "total_tokens",
    "inputTokens",
    "outputTokens",
    "promptTokenCount",
    "prompt_token_count",
    "totalTokenCount",
    "total_token_count",
    "candidatesTokenCount",
    "citation_tokens",
    "pages_processed",
]

KEYS = frozenset(
    (
        *USAGE_KEYS,
        *_HOLDERS,
        *BESIDE,
        *_BARE,
        "meta",
        "done",
        "choices",
        "candidates",
        "type",
        "messageStop",
    )
)

_LOUD_TYPES = frozenset(
    [
        "message_start",
        "message_delta",
        "message_stop",
        "message",
        "response.completed",
        "response.incomplete",
        "response.failed",
        "response.output_item.done",
        "message-end",
    ]
)
_FINISHED_TYPES = frozenset(
    ["message_stop", "response.completed", "response.incomplete", "response.failed", "message-end"]
)
_ANSWER_TEXT = ("prompt", "response", "message", "context", "thinking")
_MAX_DETAILS = 8192
_MAX_COUNTS = 40
_LARGEST_AMOUNT = (
    2_000_000  # of money, seconds and the like: a ledger takes twice as much of one call
)


def is_quiet(top: Mapping[str, Any]) -> bool:
    """Whether an event of a running stream has nothing for us: decides most events, so it only
    looks at keys.
    """
    if top.get("usage") or top.get("usageMetadata") or top.get("usage_metadata"):
        return False
    choices = items(top.get("choices"))
    if choices:
        finished = fields(choices[0]).get("finish_reason")
        return not finished and not top.get("x_groq") and not top.get("timings")
    kind = top.get("type")
    if isinstance(kind, str):
        return kind not in _LOUD_TYPES and KEYS.isdisjoint(
            top.keys() - {"type", "delta", "message"}
        )
    return top.get("done") is False or KEYS.isdisjoint(top)


def holders(top: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The event itself and the containers in it that may hold a usage object."""
    yield top
    for key in _HOLDERS:
        inner = top.get(key)
        if not inner or isinstance(inner, str):
            continue
        holder = fields(inner)
        yield holder
        if key in _INNER:
            yield fields(holder.get(_INNER[key]))


def stated_in(holder: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The usage objects of one container."""
    for key in USAGE_KEYS:
        stated = fields(holder.get(key))
        if stated:
            yield stated
    meta = fields(holder.get("meta"))  # Cohere; elsewhere "meta" is anything
    if "tokens" in meta or "billed_units" in meta:
        yield meta


def bare_usage(top: Mapping[str, Any]) -> Mapping[str, Any]:
    """The event as a usage object of its own, where it is one (Ollama's last line, or a usage
    passed directly).
    """
    if top.get("done") is True:
        return {key: value for key, value in top.items() if key not in _ANSWER_TEXT}
    if any(number(top.get(name)) is not None for name in _BARE):
        return top
    is_cohere = bool(fields(top.get("billed_units")))
    return top if is_cohere or top.get("type") == "duration" else {}


def is_running_total(top: Mapping[str, Any]) -> bool:
    """Whether a chat chunk's usage is a running total: it stands beside text of an unfinished
    answer.
    """
    for choice in map(fields, items(top.get("choices"))):
        if choice.get("finish_reason"):
            return False
        delta = fields(choice.get("delta"))
        if delta.get("content") or delta.get("reasoning_content") or delta.get("reasoning"):
            return True
        return not number(fields(top.get("usage")).get("completion_tokens"))
    return False


def states_output(top: Mapping[str, Any]) -> bool:
    """Whether an Anthropic `message_delta` says what the answer took."""
    usage = fields(top.get("usage"))
    return number(usage.get("output_tokens")) is not None or bool(items(usage.get("iterations")))


def is_open_delta(top: Mapping[str, Any]) -> bool:
    """Whether an Anthropic `message_delta` says itself that the message goes on."""
    delta = fields(top.get("delta"))
    return "stop_reason" in delta and not delta["stop_reason"]


def is_finished(top: Mapping[str, Any]) -> bool:
    """Whether the event ends the answer (some vendors send the usage after it)."""
    if text(top.get("type")) in _FINISHED_TYPES or top.get("done") is True or "messageStop" in top:
        return True
    if any(fields(choice).get("finish_reason") for choice in items(top.get("choices"))):
        return True
    for candidate in map(fields, items(top.get("candidates"))):
        reason = text(candidate.get("finishReason") or candidate.get("finish_reason"))
        if reason and reason != "FINISH_REASON_UNSPECIFIED":
            return True
    feedback = fields(top.get("promptFeedback") or top.get("prompt_feedback"))
    blocked = feedback.get("blockReason") or feedback.get("block_reason")
    return bool(blocked or fields(top.get("delta")).get("stop_reason"))


def is_gemini(usage: Mapping[str, Any]) -> bool:
    """Whether the figures are Gemini's, which come as running totals with every chunk."""
    return any(
        key in usage for key in ("promptTokenCount", "prompt_token_count", "totalTokenCount")
    )


def is_search(item: Mapping[str, Any]) -> bool:
    """Whether an output item of the Responses API is a billed web search (opening a page is not)."""
    if item.get("type") != "web_search_call":
        return False
    return fields(item.get("action")).get("type") == "search"


def counts(usage: Mapping[str, Any], searches: int) -> dict[str, int | float]:
    """What is billed by the piece; zeros are left out."""
    units = fields(usage.get("billed_units"))
    by_tool = fields(fields(usage.get("tool_calls_details")).get("search_web"))
    found: dict[str, object] = {
        "web_search_requests": first_number(by_tool, "invocation")
        or searches
        or _xai_searches(usage),
        "search_queries": usage.get("num_search_queries"),
        "sources_used": usage.get("num_sources_used"),
        "audio_seconds": usage.get("seconds")
        if usage.get("type") == "duration"
        else usage.get("prompt_audio_seconds"),
        "pages": usage.get("pages_processed"),
        "search_units": units.get("search_units"),
        "classifications": units.get("classifications"),
        "images": units.get("images"),
    }
    for key in ("server_tool_use", "server_tool_use_details"):
        tools = fields(usage.get(key))
        found |= {
            name: value for name, value in tools.items() if name.endswith("_requests") and value
        }
    return {
        name: count
        for name, value in islice(found.items(), _MAX_COUNTS)
        if is_name(name) and (count := _count(value))
    }


def _xai_searches(usage: Mapping[str, Any]) -> int:
    used = [str(tool).lower() for tool in items(usage.get("server_side_tools_used"))]
    details = fields(usage.get("server_side_tool_usage_details"))
    stated = sum(number(value) or 0 for name, value in details.items() if "web_search" in name)
    return stated or sum("web_search" in tool for tool in used)


def _count(value: object) -> int | float:
    whole = number(value)
    if whole is not None:
        return whole
    return value if isinstance(value, float) and 0 < value < _LARGEST_AMOUNT else 0


def billed(usage: Mapping[str, Any]) -> dict[str, int] | None:
    """The invoiced tokens by side, where the vendor states them apart from the processed ones
    (Cohere).
    """
    units = fields(usage.get("billed_units"))
    sides = {
        "input": number(units.get("input_tokens")),
        "output": number(units.get("output_tokens")),
    }
    stated = {side: tokens for side, tokens in sides.items() if tokens is not None}
    return stated or None


def stated_cost(usage: Mapping[str, Any]) -> Decimal | None:
    """US dollars as stated by the vendor."""
    ticks = usage.get("cost_in_usd_ticks")
    if isinstance(ticks, int):
        return _money(Decimal(ticks) / 10**10)
    cost = usage.get("cost")
    if isinstance(cost, Mapping):
        return _money(fields(cast("object", cost)).get("total_cost"))
    stated = _money(cost)
    if stated is not None and usage.get("is_byok") is True:
        # With the customer's own key the router states its fee alone; the model is paid for
        # upstream.
        stated += _money(fields(usage.get("cost_details")).get("upstream_inference_cost")) or 0
    return stated


def _money(value: object) -> Decimal | None:
    if isinstance(value, bool) or not isinstance(value, (int, float, str, Decimal)):
        return None
    try:
        amount = Decimal(str(value))
    except ArithmeticError:
        return None
    return amount if amount.is_finite() and 0 <= amount < _LARGEST_AMOUNT else None


def service_tier(usage: Mapping[str, Any], beside: object) -> str | None:
    """The tier that was answered with, in lower case; it may differ from the tier that was asked
    for.
    """
    own = (
        usage.get("service_tier")
        or usage.get("serviceTier")
        or usage.get("trafficType")
        or usage.get("traffic_type")
    )
    tier = own or beside
    if isinstance(tier, Mapping):
        tier = fields(cast("object", tier)).get("type")
    name = text(tier)
    return name.lower() if name else None


def bounded(usage: Mapping[str, Any]) -> Mapping[str, Any]:
    """The vendor's usage object, or only its plain numbers where it is unreasonably large."""
    if len(repr(usage)) <= _MAX_DETAILS:
        return dict(usage)
    scalars = {key: value for key, value in usage.items() if number(value) is not None}
    return dict(list(scalars.items())[:100])
