"""From one vendor's usage object to disjoint token categories.

One function per shape. The shape is told by the fields that are there, never by the vendor's name:
resellers and gateways serve every vendor in every shape. `split_tokens` is the way in.

What all have in common: a side (prompt or answer) has one figure that the vendor stands by, and
details that may overlap, be rounded, or not add up. So each side is *divided*: the details claim
their parts in a fixed order, none more than is left, and the remainder is plain text. A sum can't
exceed what the vendor stated, and nothing is counted twice.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from glidemq_llm._read import EMPTY, fields, first_number, items, number, text

Tokens = dict[str, int]
Part = tuple[str | None, Tokens]
Shape = Callable[[Mapping[str, Any], "Context"], list[Part]]

_DEFAULT_WRITE_TTLS = frozenset({"5m", "30m"})
_TTL_FIELD = re.compile(r"(?:ephemeral|ttl)_(\w+?)_(?:input_)?tokens")
_SNAKE = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


class Context(NamedTuple):
    """What stands beside the usage object and is needed to read it."""

    model: str | None = None
    provider: str | None = None
    timings: Mapping[str, Any] = EMPTY  # llama.cpp's own counters
    breakdown: Mapping[str, Any] = EMPTY  # Groq: the same tokens by model

    @property
    def is_gemini(self) -> bool:
        """Whether a Gemini model answered: its compatible endpoint hides the thinking in the total."""
        names = f"{self.provider or ''} {self.model or ''}".lower()
        return "gemini" in names or "google" in names or "vertex" in names


def divide(total: int, claims: Iterable[tuple[str, int]], rest: str) -> Tokens:
    """Divide a total among claims in order, none getting more than is left; the remainder goes to
    `rest`.
    """
    out: Tokens = {}
    left = total
    for category, wanted in claims:
        got = min(wanted, left)
        if got > 0:
            out[category] = out.get(category, 0) + got
            left -= got
    if left > 0:
        out[rest] = out.get(rest, 0) + left
    return out


def merged(*sides: Tokens) -> Tokens:
    """The sum of several divisions, category by category."""
    out: Tokens = {}
    for side in sides:
        for category, tokens in side.items():
            out[category] = out.get(category, 0) + tokens
    return out


def split_tokens(usage: Mapping[str, Any], context: Context) -> list[Part] | None:
    """Divide a usage object into categories, per model that worked on it; None if it states no
    tokens.

    The first part is the answering model's and may be the only one.
    """
    for matches, divide_shape in _SHAPES:
        if matches(usage):
            return divide_shape(usage, context)
    return None


def _writes(total: int, *breakdowns: object) -> list[tuple[str, int]]:
    """Cache writes by lifetime: the vendor's default lifetime is `cache_write`, longer ones carry
    their name.
    """
    longer: list[tuple[str, int]] = []
    default = 0
    for breakdown in breakdowns:
        for name, value in fields(breakdown).items():
            found = _TTL_FIELD.fullmatch(name)
            if found is None:
                continue
            if found[1] in _DEFAULT_WRITE_TTLS:
                default += number(value) or 0
            else:
                longer.append((f"cache_write_{found[1]}", number(value) or 0))
        if longer or default:
            break  # a second breakdown repeats the first
    total = total or default + sum(tokens for _, tokens in longer)
    return [(name, count) for name, count in divide(total, longer, "cache_write").items()]


def _media(details: Mapping[str, Any], suffix: str) -> list[tuple[str, int]]:
    """Tokens by medium. Where they overlap with cached ones, audio yields first, then image, then
    video.
    """
    found = dict(fields(details.get("multimodal_tokens")))
    claims = [(f"{medium}_{suffix}", number(value) or 0) for medium, value in found.items()]
    named = [medium for medium in ("video", "image", "audio") if medium not in found]
    return claims + [(f"{m}_{suffix}", first_number(details, f"{m}_tokens")) for m in named]


def _prompt(
    usage: Mapping[str, Any], details: Mapping[str, Any], prompt: int, context: Context
) -> Tokens:
    cached = (
        first_number(details, "cached_tokens")
        or first_number(usage, "prompt_cache_hit_tokens", "num_cached_tokens", "cached_tokens")
        or first_number(usage, "cached_prompt_text_tokens", "cache_read_input_tokens")
        or first_number(details, "cache_read_input_tokens", "cache_read")
        or first_number(context.timings, "cache_n")
    )
    written = (
        first_number(details, "cache_write_tokens", "cache_creation_tokens", "created_cache_tokens")
        or first_number(usage, "cache_creation_input_tokens")
        or first_number(details, "cache_creation_input_tokens", "cache_creation")
    )
    by_medium = fields(
        details.get("cached_tokens_details")
    )  # realtime: the cached part of each medium
    cached_media = [
        (m, first_number(by_medium, f"{m}_tokens")) for m in ("audio", "image", "video")
    ]
    claims = [(f"cached_{medium}_input", count) for medium, count in cached_media]
    claims.append(("cached_input", max(0, cached - sum(count for _, count in cached_media))))
    claims += _writes(
        written,
        details.get("cache_write_tokens_details"),
        details.get("cache_creation_token_details"),
        usage.get("cache_creation"),
    )
    own = {f"{medium}_input": count for medium, count in cached_media}
    media = _media(details, "input") or []
    if "image_tokens" not in details and "prompt_image_tokens" in usage:  # the xAI SDK's flat form
        media.append(("image_input", first_number(usage, "prompt_image_tokens")))
    claims += [(name, max(0, count - own.get(name, 0))) for name, count in media]
    return divide(prompt, claims, "input")


def _answer(
    usage: Mapping[str, Any], details: Mapping[str, Any], prompt: int, output: int, gemini: bool
) -> Tokens:
    reasoning = first_number(details, "reasoning_tokens") or first_number(usage, "reasoning_tokens")
    total = number(usage.get("total_tokens"))
    media = _media(details, "output")
    # Whether the answer's figure includes the thinking differs by vendor and by reseller; the total
    # decides.
    if reasoning and (reasoning > output or total == prompt + output + reasoning):
        answer = merged({"reasoning": reasoning}, divide(output, media, "output"))
    else:
        answer = divide(output, [("reasoning", reasoning), *media], "output")
    unexplained = (total or 0) - prompt - sum(answer.values())
    if unexplained > 0:
        answer = merged(answer, {"reasoning" if gemini else "other": unexplained})
    return answer


def _openai(usage: Mapping[str, Any], context: Context) -> list[Part]:
    prompt = number(usage.get("prompt_tokens")) or 0
    output = number(usage.get("completion_tokens")) or 0
    prompt_side = _prompt(usage, fields(usage.get("prompt_tokens_details")), prompt, context)
    details = fields(usage.get("completion_tokens_details"))
    tokens = merged(prompt_side, _answer(usage, details, prompt, output, context.is_gemini))
    return _by_model(tokens, context) or [(None, tokens)]


def _by_model(tokens: Tokens, context: Context) -> list[Part] | None:
    """The same tokens by the models of a compound system, if the breakdown accounts for every one
    of them.
    """
    alone = context._replace(breakdown=EMPTY)
    parts: list[Part] = [(None, {})]
    for row in map(fields, items(context.breakdown.get("models"))):
        parts += [
            (text(row.get("model")), part) for _, part in _openai(fields(row.get("usage")), alone)
        ]
    return parts if merged(*(part for _, part in parts)) == tokens and len(parts) > 1 else None


def _responses(usage: Mapping[str, Any], context: Context) -> list[Part]:
    prompt = number(usage.get("input_tokens")) or 0
    output = number(usage.get("output_tokens")) or 0
    prompt_details = fields(usage.get("input_tokens_details") or usage.get("input_token_details"))
    details = fields(usage.get("output_tokens_details") or usage.get("output_token_details"))
    prompt_side = _prompt(usage, prompt_details, prompt, context)
    return [(None, merged(prompt_side, _answer(usage, details, prompt, output, context.is_gemini)))]


def _sonar(usage: Mapping[str, Any], context: Context) -> list[Part]:
    """Perplexity: reasoning and citations are billed beside the answer, and its total leaves both
    out.
    """
    prompt = number(usage.get("prompt_tokens")) or 0
    claims = {
        "output": number(usage.get("completion_tokens")) or 0,
        "reasoning": first_number(usage, "reasoning_tokens"),
        "citation": first_number(usage, "citation_tokens"),
    }
    answer = {category: tokens for category, tokens in claims.items() if tokens}
    return [
        (
            None,
            merged(
                _prompt(usage, fields(usage.get("prompt_tokens_details")), prompt, context), answer
            ),
        )
    ]


def _total_only(usage: Mapping[str, Any]) -> list[Part]:
    return [(None, divide(number(usage.get("total_tokens")) or 0, (), "input"))]


def _anthropic(usage: Mapping[str, Any], context: Context) -> list[Part]:
    """The iterations where there are any (the top level leaves some of them out), else the top
    level.
    """
    iterations = [fields(item) for item in items(usage.get("iterations"))] or [usage]
    parts = [(text(item.get("model")), _anthropic_call(item)) for item in iterations]
    _move_lifetimes(usage, parts)
    _move_thinking(usage, parts)
    by_model: dict[str | None, Tokens] = {None: {}}
    for model, tokens in parts:
        key = None if model == context.model else model
        by_model[key] = merged(by_model.get(key, {}), tokens)
    own = by_model.pop(None)
    return [(None, own), *by_model.items()]


def _anthropic_call(call: Mapping[str, Any]) -> Tokens:
    written = first_number(call, "cache_creation_input_tokens")
    tokens = merged(
        {
            "input": first_number(call, "input_tokens"),
            "cached_input": first_number(call, "cache_read_input_tokens"),
            "output": first_number(call, "output_tokens"),
        },
        dict(_writes(written, call.get("cache_creation"))),
    )
    return {category: count for category, count in tokens.items() if count}


def _move_lifetimes(usage: Mapping[str, Any], parts: list[Part]) -> None:
    """Iterations rarely repeat the lifetimes of their cache writes: take them from the top level's
    breakdown.
    """
    if any(category.startswith("cache_write_") for _, tokens in parts for category in tokens):
        return
    for category, wanted in _writes(0, usage.get("cache_creation")):
        if category != "cache_write":
            _move(parts, "cache_write", category, wanted)


def _move_thinking(usage: Mapping[str, Any], parts: list[Part]) -> None:
    thinking = first_number(fields(usage.get("output_tokens_details")), "thinking_tokens")
    _move(parts, "output", "reasoning", thinking)


def _move(parts: list[Part], source: str, target: str, wanted: int) -> None:
    """Rename up to `wanted` tokens; the answering model's own calls (those that name no other) come
    first.
    """
    for _, tokens in sorted(parts, key=lambda part: part[0] is not None):
        moved = min(wanted, tokens.get(source, 0))
        if moved:
            tokens[source] -= moved
            tokens[target] = tokens.get(target, 0) + moved
            wanted -= moved
            if not tokens[source]:
                del tokens[source]


def _bedrock(usage: Mapping[str, Any]) -> list[Part]:
    """Each cache figure is sent up to three times under different names; one of them is read."""
    written = first_number(usage, "cacheWriteInputTokens", "cacheWriteInputTokenCount")
    longer: list[tuple[str, int]] = []
    for entry in map(fields, items(usage.get("cacheDetails"))):
        ttl = text(entry.get("ttl"))
        if ttl and ttl not in _DEFAULT_WRITE_TTLS:
            longer.append((f"cache_write_{ttl}", first_number(entry, "inputTokens")))
    written = written or sum(
        first_number(fields(e), "inputTokens") for e in items(usage.get("cacheDetails"))
    )
    tokens = {
        "input": first_number(usage, "inputTokens"),
        "cached_input": first_number(usage, "cacheReadInputTokens", "cacheReadInputTokenCount"),
        **divide(written, longer, "cache_write"),
        "output": first_number(usage, "outputTokens"),
    }
    return [(None, {category: count for category, count in tokens.items() if count})]


def _snake_keys(value: Mapping[str, Any]) -> dict[str, Any]:
    return {_SNAKE.sub("_", key).lower(): item for key, item in value.items()}


def _by_medium(listed: object) -> Tokens:
    """Gemini's list of tokens by modality, without text: lists need not add up, and text is the
    remainder.
    """
    out: Tokens = {}
    for entry in items(listed):
        row = _snake_keys(fields(entry))
        medium = (text(row.get("modality")) or "text").lower()
        if medium not in ("text", "modality_unspecified"):
            out[medium] = out.get(medium, 0) + first_number(row, "token_count")
    return out


def _gemini(usage: Mapping[str, Any]) -> list[Part]:
    u = _snake_keys(usage)
    media = _by_medium(u.get("prompt_tokens_details") or u.get("prompt_token_details"))
    cached_media = _by_medium(u.get("cache_tokens_details"))
    cached = first_number(u, "cached_content_token_count")
    prompt = number(u.get("prompt_token_count"))
    claims = [(f"cached_{medium}_input", count) for medium, count in cached_media.items()]
    claims.append(("cached_input", max(0, cached - sum(cached_media.values()))))
    claims += [
        (f"{medium}_input", max(0, n - cached_media.get(medium, 0))) for medium, n in media.items()
    ]
    answer_media = _by_medium(
        u.get("candidates_tokens_details") or u.get("response_tokens_details")
    )
    tokens = merged(
        divide(sum(media.values()) if prompt is None else prompt, claims, "input"),
        divide(first_number(u, "tool_use_prompt_token_count"), (), "tool_input"),
        divide(
            first_number(u, "candidates_token_count", "response_token_count"),
            [(f"{medium}_output", count) for medium, count in answer_media.items()],
            "output",
        ),
        divide(first_number(u, "thoughts_token_count"), (), "reasoning"),
    )
    unexplained = first_number(u, "total_token_count") - sum(tokens.values())
    return [(None, merged(tokens, divide(max(0, unexplained), (), "other")))]


def _cohere(usage: Mapping[str, Any]) -> list[Part]:
    """Processed tokens where stated, else the invoiced ones (embeddings state no others)."""
    stated = fields(usage.get("tokens")) or fields(usage.get("billed_units"))
    cached = first_number(usage, "cached_tokens") or first_number(stated, "cached_tokens")
    prompt = divide(first_number(stated, "input_tokens"), [("cached_input", cached)], "input")
    return [(None, merged(prompt, divide(first_number(stated, "output_tokens"), (), "output")))]


def _ollama(usage: Mapping[str, Any]) -> list[Part]:
    """Zero counts are left out of the wire, so an absent one is 0."""
    prompt = divide(first_number(usage, "prompt_eval_count"), (), "input")
    return [(None, merged(prompt, divide(first_number(usage, "eval_count"), (), "output")))]


def _alone(divide_shape: Callable[[Mapping[str, Any]], list[Part]]) -> Shape:
    """A shape that reads from the usage object all it needs."""
    return lambda usage, _: divide_shape(usage)


def _has(*names: str) -> Callable[[Mapping[str, Any]], bool]:
    return lambda usage: any(number(usage.get(name)) is not None for name in names)


_GEMINI_FIELDS = [
    "promptTokenCount",
    "prompt_token_count",
    "candidatesTokenCount",
    "candidates_token_count",
    "responseTokenCount",
    "response_token_count",
    "thoughtsTokenCount",
    "thoughts_token_count",
    "totalTokenCount",
    "total_token_count",
]


def _is_chat(usage: Mapping[str, Any]) -> bool:
    # LiteLLM's object has these names in any case; where it holds other figures, they are 0.
    is_hollow = not first_number(usage, "prompt_tokens", "completion_tokens")
    other = is_hollow and first_number(usage, "input_tokens", "output_tokens")
    return _has("prompt_tokens", "completion_tokens")(usage) and not other


# In order: the first that matches reads it. `prompt_tokens` comes before the Anthropic names,
# because gateways add those to an inclusive usage; `total_tokens` tells the Responses API from
# Anthropic, whose names are the same.
_SHAPES: tuple[tuple[Callable[[Mapping[str, Any]], bool], Shape], ...] = (
    (_has("citation_tokens"), _sonar),
    (_is_chat, _openai),
    (
        lambda usage: bool(fields(usage.get("tokens")) or fields(usage.get("billed_units"))),
        _alone(_cohere),
    ),
    (lambda u: _has("input_tokens", "output_tokens")(u) and _has("total_tokens")(u), _responses),
    (
        lambda u: _has("input_tokens", "output_tokens")(u) or bool(items(u.get("iterations"))),
        _anthropic,
    ),
    (_has("inputTokens", "outputTokens"), _alone(_bedrock)),
    (_has(*_GEMINI_FIELDS), _alone(_gemini)),
    (lambda usage: usage.get("done") is True, _alone(_ollama)),
    (_has("total_tokens"), _alone(_total_only)),
)


def split_timings(timings: Mapping[str, Any]) -> list[Part] | None:
    """llama.cpp's own counters, for a server that states no usage."""
    if not _has("prompt_n", "predicted_n")(timings):
        return None
    counts = {
        "input": first_number(timings, "prompt_n"),
        "cached_input": first_number(timings, "cache_n"),
        "output": first_number(timings, "predicted_n"),
    }
    return [(None, {category: count for category, count in counts.items() if count})]
