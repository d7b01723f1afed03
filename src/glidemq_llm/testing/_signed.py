"""What vendors want to see again beside the calls of tools: thinking and signatures.

The id of a signed call says who has signed it, so that a request shows by itself what has to be sent back. Nothing is
remembered, and what another has signed is as wrong as what is missing.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from glidemq_llm._read import fields, items
from glidemq_llm.testing._tools import ToolCall

_MARK: Final = "-signed-by-"


def marked(id: str, vendor: str, model: object) -> str:
    """The id of a call that is signed."""
    return f"{id}{_MARK}{vendor}-{model}"


def signed_id(tools: Sequence[ToolCall]) -> str | None:
    """The id that stands in the signature of a turn; None if it is not signed."""
    return tools[0].id if tools and _MARK in tools[0].id else None


def _is_by(signed: str, vendor: str, body: Mapping[str, Any]) -> bool:
    """Has the model that is asked made the call itself, and signed it?"""
    return signed.endswith(marked("", vendor, body.get("model")))


def thinking(signed: str) -> dict[str, str]:
    """Anthropic's block of thinking, in clear."""
    return {
        "type": "thinking",
        "thinking": f"thoughts of {signed}",
        "signature": f"anthropic {signed}",
    }


def hidden(signed: str) -> dict[str, str]:
    """Anthropic's block of thinking, hidden."""
    return {"type": "redacted_thinking", "data": f"anthropic hides {signed}"}


def details(signed: str) -> list[dict[str, Any]]:
    """OpenRouter's details of reasoning."""
    clear = {
        "type": "reasoning.text",
        "text": f"thoughts of {signed}",
        "signature": f"openrouter {signed}",
        "format": "anthropic-claude-v1",
        "index": 0,
    }
    return [clear, {"type": "reasoning.encrypted", "data": f"openrouter {signed}", "index": 1}]


def thoughts(signed: str) -> str:
    """DeepSeek's reasoning."""
    return f"thoughts of {signed}"


def gemini_signature(signed: str) -> str:
    """Gemini's signature: bytes, in JSON as base64."""
    return base64.b64encode(b"\xfb\xff gemini " + signed.encode()).decode()


def anthropic_thoughts(signed: str) -> Iterator[dict[str, Any]]:
    """The events of a stream of Anthropic's, before its text."""
    block = thinking(signed)
    empty = {"type": "thinking", "thinking": "", "signature": ""}
    yield {"type": "content_block_start", "index": 0, "content_block": empty}
    for half in (block["thinking"][:5], block["thinking"][5:]):
        delta = {"type": "thinking_delta", "thinking": half}
        yield {"type": "content_block_delta", "index": 0, "delta": delta}
    delta = {"type": "signature_delta", "signature": block["signature"]}
    yield {"type": "content_block_delta", "index": 0, "delta": delta}
    yield {"type": "content_block_stop", "index": 0}
    yield {"type": "content_block_start", "index": 1, "content_block": hidden(signed)}
    yield {"type": "content_block_stop", "index": 1}


def anthropic_objection(body: Mapping[str, Any]) -> str | None:
    """What Anthropic has to say of the thinking in a request."""
    is_thinking = fields(body.get("thinking")).get("type") == "enabled"
    last: list[Mapping[str, Any]] = []
    for message in map(fields, items(body.get("messages"))):
        parts = [fields(part) for part in items(message.get("content"))]
        last = parts if message.get("role") == "assistant" else last
        found = [part for part in parts if "thinking" in str(part.get("type"))]
        uses = [part for part in parts if part.get("type") == "tool_use"]
        signed = str(uses[0]["id"]) if uses else ""
        wanted = [thinking(signed), hidden(signed)] if _is_by(signed, "anthropic", body) else []
        if found != wanted or parts[: len(wanted)] != wanted:
            return f"`thinking` blocks cannot be modified: {found}"
    if is_thinking and last and "thinking" not in str(last[0].get("type")):
        return "a final `assistant` message must start with a thinking block"
    return None


def chat_objection(body: Mapping[str, Any], vendor: str) -> str | None:
    """What a vendor that speaks OpenAI's dialect has to say of the reasoning in a request."""
    for message in map(fields, items(body.get("messages"))):
        calls = [fields(call) for call in items(message.get("tool_calls"))]
        found = {name: message[name] for name in _REASONING if message.get(name)}
        signed = str(calls[0]["id"]) if calls else ""
        wanted: dict[str, Any] = {}
        if vendor == "deepseek" and calls:
            is_own = _is_by(signed, vendor, body)
            wanted = {"reasoning_content": thoughts(signed) if is_own else " "}
        elif vendor == "openrouter" and _is_by(signed, vendor, body):
            wanted = {"reasoning_details": details(signed)}
        if found != wanted:
            return f"the reasoning must be passed back: {wanted}, not {found}"
    return None


_REASONING: Final = ("reasoning_content", "reasoning_details", "thinking_blocks", "own")
_FOREIGN: Final = base64.b64encode(b"skip_thought_signature_validator").decode()


def gemini_objection(body: Mapping[str, Any]) -> str | None:
    """What Gemini has to say of the signatures in a request; models before the third do without."""
    is_strict = "gemini-3" in str(body.get("model"))
    for content in map(fields, items(body.get("contents"))):
        parts = [fields(part) for part in items(content.get("parts"))]
        called = [part for part in parts if "functionCall" in part]
        signatures = [_padded(part.get("thoughtSignature")) for part in called]
        if not called:
            continue
        signed = str(called[0]["functionCall"].get("id"))
        is_own = _is_by(signed, "google", body)
        wanted = gemini_signature(signed) if is_own else _FOREIGN
        if signatures[0] not in ("", wanted) or any(signatures[1:]):
            return f"Invalid thought signature: {signatures}"
        if is_strict and not signatures[0]:
            return "Function call is missing a thought_signature in functionCall parts."
    return None


def _padded(signature: object) -> str:
    """As standard base64: the SDK sends the other alphabet."""
    return str(signature or "").replace("-", "+").replace("_", "/")
