"""The wire formats the fake provider speaks: OpenAI chat, responses and embeddings, Anthropic messages."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Protocol, cast

from glidemq_llm._read import fields, items
from glidemq_llm.testing._signed import (
    anthropic_objection,
    anthropic_thoughts,
    chat_objection,
    signed_id,
)
from glidemq_llm.testing._tools import (
    Answered,
    ToolCall,
    anthropic_answered,
    anthropic_blocks,
    anthropic_events,
    chat_answered,
    chat_calls,
    chat_deltas,
)

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    413: "request_too_large",
    429: "rate_limit_error",
    529: "overloaded_error",
}
_STOP_REASONS = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
}


class Billed(Protocol):
    """What a format needs to know of a call; `shown` are its visible tokens so far, `texts` those of the request."""

    model: str
    input: int
    cached: int
    texts: int
    reasoning: int
    citation: int
    shown: int
    finish: str
    tells_usage: bool
    tools: list[ToolCall]

    @property
    def id(self) -> str: ...

    @property
    def text(self) -> str: ...


class Shape:
    """OpenAI chat completions.

    Attributes:
        tells_unasked: Whether a stream states its usage without `stream_options`.
        name: The vendor's, if it wants to be sent back what it signs.
    """

    tells_unasked: ClassVar[bool] = False
    name: ClassVar[str] = ""

    def headers(self) -> dict[str, str]:
        """The vendor's own headers of an answer."""
        return {}

    def start(self, call: Billed) -> Iterator[bytes]:
        """The events before the first token."""
        yield data(self._chunk(call, {"role": "assistant", "content": ""}))

    def token(self, call: Billed, word: str) -> bytes:
        """The event of one token."""
        return data(self._chunk(call, {"content": word}))

    def after_text(self, call: Billed) -> Iterator[bytes]:
        """The events between the last token and the end: the tools that are called."""
        for delta in chat_deltas(call.tools):
            yield data(self._chunk(call, {"tool_calls": [delta]}))

    def answered(self, body: Mapping[str, Any]) -> Answered:
        """What a request answers to calls of tools."""
        return chat_answered(body)

    def objection(self, body: Mapping[str, Any]) -> str | None:
        """Why the vendor refuses the thinking that a request sends back, or does not."""
        return chat_objection(body, self.name)

    def finish(self, call: Billed) -> Iterator[bytes]:
        """The events after the last token."""
        yield data(self._chunk(call, {}, call.finish))
        if call.tells_usage:
            yield data({**self._chunk(call, {}), "choices": [], "usage": self.usage(call)})
        yield b"data: [DONE]\n\n"

    def error_event(self, call: Billed) -> bytes:
        """An overload in the middle of a stream whose status was 200."""
        return data(
            {"error": {"message": "Overloaded", "type": "server_error", "code": "overloaded"}}
        )

    def whole(self, call: Billed) -> dict[str, Any]:
        """The answer in one piece."""
        message: dict[str, Any] = {"role": "assistant", "content": call.text}
        if call.tools:
            message["tool_calls"] = chat_calls(call.tools)
        choice = {"index": 0, "message": message, "finish_reason": call.finish, "logprobs": None}
        whole = {
            "id": call.id,
            "object": "chat.completion",
            "created": 1,
            "model": call.model,
            "choices": [choice],
        }
        return whole | ({"usage": self.usage(call)} if call.tells_usage else {})

    def http_error(
        self, status: int, kind: str | None, code: str | None, message: str
    ) -> dict[str, Any]:
        """The body of an error."""
        kind = kind or _TYPES.get(status, "server_error")
        code = code or ("rate_limit_exceeded" if status == 429 else None)
        return {"error": {"message": message, "type": kind, "param": None, "code": code}}

    def usage(self, call: Billed) -> dict[str, Any]:
        """What was billed, as the vendor says it."""
        output = call.shown + call.reasoning
        return {
            "prompt_tokens": call.input,
            "completion_tokens": output,
            "total_tokens": call.input + output,
            "prompt_tokens_details": {"cached_tokens": call.cached},
            "completion_tokens_details": {"reasoning_tokens": call.reasoning},
        }

    def _chunk(
        self, call: Billed, delta: dict[str, Any], finish: str | None = None
    ) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        return {
            "id": call.id,
            "object": "chat.completion.chunk",
            "created": 1,
            "model": call.model,
            "choices": [choice],
        }


class ResponsesShape(Shape):
    """OpenAI responses."""

    tells_unasked = True

    def start(self, call: Billed) -> Iterator[bytes]:
        """The events before the first token."""
        yield event("response.created", response=self._response(call, "in_progress", []))
        item: dict[str, Any] = {
            "id": f"msg-{call.id}",
            "type": "message",
            "role": "assistant",
            "status": "in_progress",
            "content": [],
        }
        yield event("response.output_item.added", output_index=0, item=item)
        part: dict[str, Any] = {"type": "output_text", "text": "", "annotations": []}
        place = {"item_id": item["id"], "output_index": 0, "content_index": 0}
        yield event("response.content_part.added", **place, part=part)

    def token(self, call: Billed, word: str) -> bytes:
        """The event of one token."""
        place = {"item_id": f"msg-{call.id}", "output_index": 0, "content_index": 0}
        return event("response.output_text.delta", **place, delta=word)

    def finish(self, call: Billed) -> Iterator[bytes]:
        """The events after the last token."""
        whole = self.whole(call)
        yield event(f"response.{whole['status']}", response=whole)

    def error_event(self, call: Billed) -> bytes:
        """An overload in the middle of a stream whose status was 200."""
        return event("error", code="server_is_overloaded", message="Overloaded", param=None)

    def whole(self, call: Billed) -> dict[str, Any]:
        """The answer in one piece."""
        content: list[Any] = [{"type": "output_text", "text": call.text, "annotations": []}]
        item: dict[str, Any] = {
            "id": f"msg-{call.id}",
            "type": "message",
            "role": "assistant",
            "status": "completed",
            "content": content,
        }
        whole = self._response(call, "completed" if call.finish == "stop" else "incomplete", [item])
        return whole | ({"usage": self.usage(call)} if call.tells_usage else {})

    def usage(self, call: Billed) -> dict[str, Any]:
        """What was billed, as the vendor says it."""
        output = call.shown + call.reasoning
        return {
            "input_tokens": call.input,
            "input_tokens_details": {"cached_tokens": call.cached},
            "output_tokens": output,
            "output_tokens_details": {"reasoning_tokens": call.reasoning},
            "total_tokens": call.input + output,
        }

    def _response(self, call: Billed, status: str, output: list[dict[str, Any]]) -> dict[str, Any]:
        details = {"reason": "max_output_tokens" if call.finish == "length" else call.finish}
        return {
            "id": call.id,
            "object": "response",
            "created_at": 1,
            "model": call.model,
            "status": status,
            "error": None,
            "incomplete_details": details if status == "incomplete" else None,
            "output": output,
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": [],
        }


class AnthropicShape(Shape):
    """Anthropic messages."""

    tells_unasked = True
    name = "anthropic"

    def start(self, call: Billed) -> Iterator[bytes]:
        """The events before the first token."""
        usage = self.usage(call) | {"output_tokens": 1} if call.tells_usage else {}
        yield event("message_start", message=self._message(call, [], None, usage))
        signed = signed_id(call.tools)
        for told in anthropic_thoughts(signed) if signed else ():
            yield event(told.pop("type"), **told)
        text = {"type": "text", "text": ""}
        yield event("content_block_start", index=self._place(call), content_block=text)
        yield event("ping")

    def token(self, call: Billed, word: str) -> bytes:
        """The event of one token."""
        delta = {"type": "text_delta", "text": word}
        return event("content_block_delta", index=self._place(call), delta=delta)

    def after_text(self, call: Billed) -> Iterator[bytes]:
        """The end of the text, and the tools that are called."""
        place = self._place(call)
        yield event("content_block_stop", index=place)
        for told in anthropic_events(call.tools, place + 1):
            yield event(told.pop("type"), **told)

    @staticmethod
    def _place(call: Billed) -> int:
        """The text's, among the blocks of the message."""
        return 2 if signed_id(call.tools) else 0

    def objection(self, body: Mapping[str, Any]) -> str | None:
        """Why Anthropic refuses the thinking that a request sends back, or does not."""
        return anthropic_objection(body)

    def answered(self, body: Mapping[str, Any]) -> Answered:
        """What a request answers to calls of tools."""
        return anthropic_answered(body)

    def finish(self, call: Billed) -> Iterator[bytes]:
        """The events after the last token."""
        usage = {"output_tokens": call.shown + call.reasoning} if call.tells_usage else {}
        delta = {"stop_reason": _STOP_REASONS.get(call.finish, call.finish), "stop_sequence": None}
        yield event("message_delta", delta=delta, usage=usage)
        yield event("message_stop")

    def error_event(self, call: Billed) -> bytes:
        """An overload in the middle of a stream whose status was 200."""
        return event("error", error={"type": "overloaded_error", "message": "Overloaded"})

    def whole(self, call: Billed) -> dict[str, Any]:
        """The answer in one piece."""
        reason = _STOP_REASONS.get(call.finish, call.finish)
        usage = self.usage(call) if call.tells_usage else {}
        content = [{"type": "text", "text": call.text}, *anthropic_blocks(call.tools)]
        return self._message(call, content, reason, usage)

    def http_error(
        self, status: int, kind: str | None, code: str | None, message: str
    ) -> dict[str, Any]:
        """The body of an error."""
        error: dict[str, Any] = {
            "type": kind or _TYPES.get(status, "api_error"),
            "message": message,
        }
        return {
            "type": "error",
            "error": error | ({"details": {"error_code": code}} if code else {}),
        }

    def usage(self, call: Billed) -> dict[str, Any]:
        """What was billed, as the vendor says it: cached tokens stand beside the others."""
        return {
            "input_tokens": call.input - call.cached,
            "cache_read_input_tokens": call.cached,
            "cache_creation_input_tokens": 0,
            "output_tokens": call.shown + call.reasoning,
        }

    def _message(
        self, call: Billed, content: list[dict[str, Any]], reason: str | None, usage: dict[str, Any]
    ) -> dict[str, Any]:
        return {
            "id": call.id,
            "type": "message",
            "role": "assistant",
            "model": call.model,
            "content": content,
            "stop_reason": reason,
            "stop_sequence": None,
            "usage": usage,
        }


class EmbeddingsShape(Shape):
    """OpenAI embeddings: a vector for each text, never in a stream."""

    tells_unasked = True

    def whole(self, call: Billed) -> dict[str, Any]:
        """The answer in one piece."""
        vectors = [
            {"object": "embedding", "index": index, "embedding": [float(index), 1.0]}
            for index in range(call.texts)
        ]
        whole = {"object": "list", "data": vectors, "model": call.model}
        return whole | ({"usage": self.usage(call)} if call.tells_usage else {})

    def usage(self, call: Billed) -> dict[str, Any]:
        """What was billed, as the vendor says it."""
        return {"prompt_tokens": call.input, "total_tokens": call.input}


SHAPES: dict[str, Shape] = {
    "/v1/chat/completions": Shape(),
    "/v1/responses": ResponsesShape(),
    "/v1/embeddings": EmbeddingsShape(),
    "/v1/messages": AnthropicShape(),
}


def texts(request: Mapping[str, Any]) -> list[str]:
    """All texts of a request's messages, the last one last."""
    found: list[str] = []
    parts: list[Any] = [request.get("system"), request.get("instructions")]
    parts += items(request.get("messages")) + _listed(request.get("input"))
    for part in parts:
        for piece in _listed(_field(part, "content")):
            text = _field(piece, "text")
            if text:
                found.append(text)
    return found


def _field(value: Any, name: str) -> Any:
    """A field of a message or part; a text that stands for one is itself."""
    return fields(cast("object", value)).get(name) if isinstance(value, dict) else value


def _listed(value: Any) -> list[Any]:
    return items(cast("object", value)) if isinstance(value, list) else [value]


def data(value: Mapping[str, Any]) -> bytes:
    """A server-sent event without a name."""
    return f"data: {json.dumps(value)}\n\n".encode()


def event(kind: str, **fields: Any) -> bytes:
    """A server-sent event whose data names its type as well."""
    return f"event: {kind}\n".encode() + data({"type": kind, **fields})
