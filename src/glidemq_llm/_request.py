"""Reading a request in any vendor's form: what is text, what is media, what is tools, how long an
answer may be.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from glidemq_llm._images import Kind, Medium, decoded_head, image_size
from glidemq_llm._read import fields, first_number, items, number, plain, text, whole

_PROMPT_KEYS = [
    "messages",
    "input",
    "prompt",
    "contents",
    "system",
    "instructions",
    "system_instruction",
    "systemInstruction",
    "message",
    "preamble",
    "chat_history",
    "documents",
    "query",
    "texts",
]
_NESTED_KEYS = ("config", "generationConfig", "generation_config", "inferenceConfig", "options")
_TOOL_KEYS = (
    *("tools", "functions", "toolConfig", "tool_config"),
    *("response_format", "text_format", "output_format", "response_schema", "format"),
)

# Structure, not prompt: names of types, ids, signatures of earlier thinking, cache marks.
_NOT_TEXT = frozenset(
    [
        "type",
        "role",
        "id",
        "name",
        "index",
        "model",
        "signature",
        "thoughtSignature",
        "thought_signature",
        "encrypted_content",
        "detail",
        "status",
        "media_type",
        "mime_type",
        "mimeType",
        "mediaType",
        "format",
        "filename",
        "file_id",
        "tool_call_id",
        "tool_use_id",
        "toolUseId",
        "call_id",
        "cache_control",
        "cachePoint",
        "cache_point",
        "citations",
    ]
)
_MEDIA_KEYS: dict[str, Kind] = {
    "image_url": "image",
    "input_image": "image",
    "image": "image",
    "input_audio": "audio",
    "audio": "audio",
    "video": "video",
    "video_url": "video",
    "document": "document",
    "document_url": "document",
    "file": "document",
    "input_file": "document",
    "inlineData": "document",
    "inline_data": "document",
    "fileData": "document",
    "file_data": "document",
}
_OUTPUT_LIMITS = [
    "max_completion_tokens",
    "max_output_tokens",
    "max_tokens",
    "maxOutputTokens",
    "maxTokens",
    "max_tokens_to_sample",
    "num_predict",
]
_CHOICES = ("n", "candidateCount", "candidate_count", "best_of", "num_generations")


@dataclass(slots=True)
class Prompt:
    """A request taken apart.

    Attributes:
        texts: Every text the model will read, tools apart.
        messages: How many messages there are; each is wrapped in a few tokens.
        names: How many of them carry a name.
        media: Everything that is not text.
        tools: The tools and answer schemas as compact JSON; empty if there are none.
        ids: Tokens that were given as ids already.
    """

    texts: list[str] = field(default_factory=list[str])
    messages: int = 0
    names: int = 0
    media: list[Medium] = field(default_factory=list[Medium])
    tools: str = ""
    ids: int = 0


def read_prompt(request: Mapping[str, Any]) -> Prompt:
    """Take a request apart."""
    prompt = Prompt()
    nested = [fields(request.get(key)) for key in _NESTED_KEYS]
    for holder in (request, *nested):
        for key in _PROMPT_KEYS:
            value = holder.get(key)
            if value is not None:
                prompt.messages += 1 if isinstance(value, str) else 0
                _walk(value, prompt)
    tools = [
        plain(holder[key]) for holder in (request, *nested) for key in _TOOL_KEYS if holder.get(key)
    ]
    text_format = fields(request.get("text")).get(
        "format"
    )  # the Responses API's place for an answer schema
    tools += [plain(text_format)] if text_format else []
    prompt.tools = json.dumps(tools, ensure_ascii=False, separators=(",", ":")) if tools else ""
    return prompt


def output_limit(request: Mapping[str, Any]) -> int | None:
    """The longest answer the request allows, over all its choices; None if it sets no limit."""
    holders = (request, *(fields(request.get(key)) for key in _NESTED_KEYS))
    stated = (whole(holder.get(name)) or 0 for holder in holders for name in _OUTPUT_LIMITS)
    limit = next((limit for limit in stated if limit > 0), None)
    return limit * choices(request) if limit else None


def choices(request: Mapping[str, Any]) -> int:
    """How many answers are asked for."""
    holders = (request, *(fields(request.get(key)) for key in _NESTED_KEYS))
    return max(first_number(holder, *_CHOICES) or 1 for holder in holders)


def thinking_budget(request: Mapping[str, Any]) -> int:
    """Tokens of thinking the request allows explicitly, 0 if it doesn't say."""
    found = first_number(fields(request.get("thinking")), "budget_tokens")
    found = found or first_number(fields(request.get("reasoning")), "max_tokens")
    for key in ("config", "generationConfig", "generation_config"):
        thinking = fields(request.get(key))
        thinking = fields(thinking.get("thinkingConfig") or thinking.get("thinking_config"))
        found = found or first_number(thinking, "thinkingBudget", "thinking_budget")
    return found


def has_no_answer(request: Mapping[str, Any]) -> bool:
    """Whether the call yields no tokens at all: embeddings, ranking, moderation."""
    model = (text(request.get("model")) or "").lower()
    is_named = any(word in model for word in ("embed", "rerank", "moderation", "voyage-"))
    return is_named or "embedding_types" in request or "encoding_format" in request


def _walk(node: object, prompt: Prompt) -> None:
    if isinstance(node, str):
        if node.startswith("data:") and ";base64," in node[:100]:
            _add_medium(_kind_of(node[5:60], "image"), node, prompt)
        elif node:
            prompt.texts.append(node)
    elif isinstance(node, (list, tuple)):
        listed = items(cast("object", node))
        if listed and all(type(item) is int for item in listed):
            prompt.ids += len(listed)
            return
        for item in listed:
            _walk(item, prompt)
    elif node is not None and not isinstance(node, (bytes, bytearray, bool, int, float)):
        _walk_object(fields(node), prompt)


def _walk_object(node: Mapping[str, Any], prompt: Prompt) -> None:
    if "role" in node:
        prompt.messages += 1
        prompt.names += bool(text(node.get("name")))
    elif isinstance(node.get("name"), str):
        prompt.texts.append(node["name"])  # of a called function: the model reads that
    kind = _MEDIA_KEYS.get(str(node.get("type")))
    if kind is not None and _is_media(node):
        _add_object(kind, node, prompt)
        return
    for key, value in node.items():
        if value is None or key in _NOT_TEXT or key.startswith("_"):
            continue
        if key == "images":  # Ollama: bare base64
            for image in items(value):
                _add_medium("image", image, prompt)
        elif key in _MEDIA_KEYS and not isinstance(value, str):
            _add_object(_MEDIA_KEYS[key], fields(value), prompt)
        elif key in ("input", "args", "arguments", "response", "json") and isinstance(value, dict):
            prompt.texts.append(
                json.dumps(plain(cast("object", value)), ensure_ascii=False, default=str)
            )
        else:
            _walk(value, prompt)


def _is_media(node: Mapping[str, Any]) -> bool:
    """Whether a typed part holds a medium; a document may hold plain text instead, which is read as
    such.
    """
    source = fields(node.get("source"))
    return source.get("type") not in ("text", "content")


def _add_object(kind: Kind, node: Mapping[str, Any], prompt: Prompt) -> None:
    """Add the medium of a part, wherever in it the data is."""
    is_low = node.get("detail") == "low"
    mime = ""
    data: object = None
    pending: list[Mapping[str, Any]] = [node]
    while pending:
        part = pending.pop()
        is_low = is_low or part.get("detail") == "low"
        for key, value in part.items():
            if key in ("mimeType", "mime_type", "media_type", "format") and isinstance(value, str):
                mime = value
            elif key in ("data", "bytes", "url", "image_url", "file_data", "video_url"):
                if isinstance(value, (str, bytes, bytearray)):
                    data = data or value
                else:
                    pending.append(fields(value))
            elif not isinstance(value, (str, bytes, int, float, list)):
                pending.append(fields(cast("object", value)))
    _add_medium(_kind_of(mime, kind), data, prompt, is_low=is_low)


def _kind_of(mime: str, default: Kind) -> Kind:
    for kind in ("image", "audio", "video"):
        if mime.startswith(kind):
            return kind
    return "document" if mime.startswith(("application", "text")) else default


def _add_medium(kind: Kind, data: object, prompt: Prompt, *, is_low: bool = False) -> None:
    if isinstance(data, str) and data.startswith("data:"):
        head, _, data = data.partition(",")
        kind = _kind_of(head[5:], kind)
    elif isinstance(data, str) and "://" in data[:12]:
        data = None  # only a link: nothing can be measured
    raw = (
        bytes(data[:65_536])
        if isinstance(data, (bytes, bytearray))
        else decoded_head(data or "")
        if isinstance(data, str)
        else b""
    )
    length = (
        len(data)
        if isinstance(data, (bytes, bytearray))
        else len(data) * 3 // 4
        if isinstance(data, str)
        else 0
    )
    size = image_size(raw) if kind == "image" else None
    prompt.media.append(Medium(kind=kind, size=size, length=length, is_low=is_low))


__all__ = [
    "Prompt",
    "choices",
    "has_no_answer",
    "number",
    "output_limit",
    "read_prompt",
    "thinking_budget",
]
