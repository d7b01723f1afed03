"""More wire formats of the fake provider: Gemini, Mistral, Cohere, Ollama and Bedrock's Converse."""

from __future__ import annotations

import json
import re
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from glidemq_llm._read import fields
from glidemq_llm.testing._dialects import DIALECTS
from glidemq_llm.testing._shapes import SHAPES, Billed, Shape, data, event
from glidemq_llm.testing._signed import gemini_objection, gemini_signature, signed_id
from glidemq_llm.testing._tools import Answered, gemini_answered, gemini_parts

_STATUS = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    503: "UNAVAILABLE",
}
_AMAZON = {
    400: "ValidationException",
    401: "UnrecognizedClientException",
    403: "AccessDeniedException",
    404: "ResourceNotFoundException",
    408: "ModelTimeoutException",
    429: "ThrottlingException",
    500: "InternalServerException",
    503: "ServiceUnavailableException",
}
# Vertex has the same behind a project and a place, or, with an API key, behind its publisher.
_GEMINI = re.compile(
    r"/v1(?:beta1?)?/(?P<vertex>.*publishers/google/)?models/(?P<model>.+):"
    r"(?P<method>generateContent|streamGenerateContent)"
)
_CLAUDE_ON_VERTEX = re.compile(
    r"/.*publishers/anthropic/models/(?P<model>.+):(?P<method>rawPredict|streamRawPredict)"
)
_COMPATIBLE = re.compile(r"/([^/]+)/.*\bchat/completions")
_CONVERSE = re.compile(r"/model/(.+)/(converse|converse-stream)")


def shape_of(path: str, body: Mapping[str, Any]) -> tuple[Shape, dict[str, Any]] | None:
    """The format of a request, and its body with `model`, `stream`, `messages` and `max_tokens` where OpenAI has them."""
    if path in SHAPES:
        return SHAPES[path], dict(body)
    found = _GEMINI.fullmatch(path)
    if found:
        messages = [{"content": content.get("parts")} for content in body.get("contents") or ()]
        limit = fields(body.get("generationConfig")).get("maxOutputTokens")
        named = {"model": found["model"], "stream": found["method"].startswith("stream")}
        shape = VertexShape() if found["vertex"] else GeminiShape()
        return shape, {**body, **named, "messages": messages, "max_tokens": limit}
    found = _CLAUDE_ON_VERTEX.fullmatch(path)
    if found:
        return SHAPES["/v1/messages"], {**body, "model": found["model"]}
    found = _CONVERSE.fullmatch(path)
    if found:
        limit = fields(body.get("inferenceConfig")).get("maxTokens")
        named = {"model": found[1], "stream": found[2].endswith("stream"), "max_tokens": limit}
        return ConverseShape(), {**body, **named}
    if path == "/api/chat":
        limit = fields(body.get("options")).get("num_predict")
        return OllamaShape(), {"stream": True, **body, "max_tokens": limit}
    found = _COMPATIBLE.fullmatch(path)
    if found and found[1] in DIALECTS:
        return DIALECTS[found[1]][1], dict(body)
    other = {"/mistral/v1/chat/completions": MistralShape(), "/v2/chat": CohereShape()}
    return (other[path], dict(body)) if path in other else None


class MistralShape(Shape):
    """OpenAI's format, but the usage is on the finish chunk, asked for or not."""

    tells_unasked = True

    def finish(self, call: Billed) -> Iterator[bytes]:
        """The events after the last token."""
        last = self._chunk(call, {"content": ""}, call.finish)
        yield data(last | ({"usage": self.usage(call)} if call.tells_usage else {}))
        yield b"data: [DONE]\n\n"

    def http_error(
        self, status: int, kind: str | None, code: str | None, message: str
    ) -> dict[str, Any]:
        """The body of an error."""
        return {"object": "error", "message": message, "type": kind or "error", "code": code}


class GeminiShape(Shape):
    """Gemini: every chunk is an answer of its own, with running totals."""

    tells_unasked = True
    name = "google"

    def start(self, call: Billed) -> Iterator[bytes]:
        """Nothing comes before the first token."""
        yield from ()

    def token(self, call: Billed, word: str) -> bytes:
        """The event of one token."""
        return data(self._answer(call, word, None, {}))

    def finish(self, call: Billed) -> Iterator[bytes]:
        """The events after the last token."""
        yield data(self._answer(call, "", call.finish, self._told(call)))

    def after_text(self, call: Billed) -> Iterator[bytes]:
        """The tools that are called, each whole in a chunk."""
        for part in self._calls(call):
            yield data(self._answer(call, "", None, {}, [part]))

    def answered(self, body: Mapping[str, Any]) -> Answered:
        """What a request answers to calls of tools."""
        return gemini_answered(body)

    def objection(self, body: Mapping[str, Any]) -> str | None:
        """Why Gemini refuses the signatures that a request sends back, or does not."""
        return gemini_objection(body)

    def error_event(self, call: Billed) -> bytes:
        """An overload in the middle of a stream whose status was 200."""
        return data(self.http_error(503, None, None, "The model is overloaded."))

    def whole(self, call: Billed) -> dict[str, Any]:
        """The answer in one piece."""
        return self._answer(call, call.text, call.finish, self._told(call), self._calls(call))

    def _calls(self, call: Billed) -> list[dict[str, Any]]:
        signed = signed_id(call.tools)
        return gemini_parts(call.tools, gemini_signature(signed) if signed else None)

    def http_error(
        self, status: int, kind: str | None, code: str | None, message: str
    ) -> dict[str, Any]:
        """The body of an error."""
        word = kind or _STATUS.get(status, "INTERNAL")
        return {"error": {"code": status, "message": message, "status": word}}

    def usage(self, call: Billed) -> dict[str, Any]:
        """What was billed, as the vendor says it."""
        told = {
            "promptTokenCount": call.input,
            "candidatesTokenCount": call.shown,
            "totalTokenCount": call.input + call.shown + call.reasoning,
        }
        told |= {"cachedContentTokenCount": call.cached} if call.cached else {}
        return told | ({"thoughtsTokenCount": call.reasoning} if call.reasoning else {})

    def _told(self, call: Billed) -> dict[str, Any]:
        return {"usageMetadata": self.usage(call)} if call.tells_usage else {}

    def _answer(
        self,
        call: Billed,
        text: str,
        finish: str | None,
        more: dict[str, Any],
        calls: Sequence[dict[str, Any]] = (),
    ) -> dict[str, Any]:
        named = {"stop": "STOP", "tool_calls": "STOP", "length": "MAX_TOKENS", None: None}
        reason = named.get(finish, finish)
        candidate: dict[str, Any] = {"index": 0}
        parts = [{"text": text}] if text or not calls else []
        candidate["content"] = {"role": "model", "parts": [*parts, *calls]}
        candidate |= {"finishReason": reason} if reason else {}
        facts = {"modelVersion": call.model, "responseId": call.id}
        return {"candidates": [candidate], **facts, **more}


class VertexShape(GeminiShape):
    """The same models on Vertex, which names the kind of traffic."""

    def usage(self, call: Billed) -> dict[str, Any]:
        """What was billed, as the vendor says it."""
        return super().usage(call) | {"trafficType": "ON_DEMAND"}


class CohereShape(Shape):
    """Cohere, version 2."""

    tells_unasked = True

    def start(self, call: Billed) -> Iterator[bytes]:
        """The events before the first token."""
        message: dict[str, Any] = {
            "role": "assistant",
            "content": [],
            "tool_plan": "",
            "tool_calls": [],
        }
        yield event("message-start", id=call.id, delta={"message": message})
        content = {"type": "text", "text": ""}
        yield event("content-start", index=0, delta={"message": {"content": content}})

    def token(self, call: Billed, word: str) -> bytes:
        """The event of one token."""
        return event("content-delta", index=0, delta={"message": {"content": {"text": word}}})

    def finish(self, call: Billed) -> Iterator[bytes]:
        """The events after the last token."""
        yield event("content-end", index=0)
        yield event("message-end", id=call.id, delta=self._end(call))

    def error_event(self, call: Billed) -> bytes:
        """A failure in the middle of a stream whose status was 200."""
        delta = {"finish_reason": "ERROR", "error": "overloaded"}
        return event("message-end", id=call.id, delta=delta)

    def whole(self, call: Billed) -> dict[str, Any]:
        """The answer in one piece."""
        message = {"role": "assistant", "content": [{"type": "text", "text": call.text}]}
        return {"id": call.id, "message": message, **self._end(call)}

    def http_error(
        self, status: int, kind: str | None, code: str | None, message: str
    ) -> dict[str, Any]:
        """The body of an error."""
        return {"message": message}

    def usage(self, call: Billed) -> dict[str, Any]:
        """What was billed, as the vendor says it."""
        counts = {"input_tokens": call.input, "output_tokens": call.shown + call.reasoning}
        told = {"billed_units": counts, "tokens": counts}
        return told | ({"cached_tokens": call.cached} if call.cached else {})

    def _end(self, call: Billed) -> dict[str, Any]:
        reason = {"stop": "COMPLETE", "length": "MAX_TOKENS"}.get(call.finish, call.finish)
        end: dict[str, Any] = {"finish_reason": reason}
        return end | ({"usage": self.usage(call)} if call.tells_usage else {})


class OllamaShape(Shape):
    """Ollama's own API: a line of JSON for each token."""

    tells_unasked = True

    def start(self, call: Billed) -> Iterator[bytes]:
        """Nothing comes before the first token."""
        yield from ()

    def token(self, call: Billed, word: str) -> bytes:
        """The line of one token."""
        return _line(self._answer(call, word) | {"done": False})

    def finish(self, call: Billed) -> Iterator[bytes]:
        """The last line."""
        yield _line(self._answer(call, "") | self._end(call))

    def error_event(self, call: Billed) -> bytes:
        """A failure in the middle of a stream whose status was 200."""
        return _line({"error": "the model is overloaded"})

    def whole(self, call: Billed) -> dict[str, Any]:
        """The answer in one piece."""
        return self._answer(call, call.text) | self._end(call)

    def http_error(
        self, status: int, kind: str | None, code: str | None, message: str
    ) -> dict[str, Any]:
        """The body of an error."""
        return {"error": message}

    def usage(self, call: Billed) -> dict[str, Any]:
        """What was used; 0 is left out."""
        counts = {"prompt_eval_count": call.input, "eval_count": call.shown}
        return {name: count for name, count in counts.items() if count}

    def _answer(self, call: Billed, text: str) -> dict[str, Any]:
        message = {"role": "assistant", "content": text}
        return {"model": call.model, "created_at": "2026-01-01T00:00:00Z", "message": message}

    def _end(self, call: Billed) -> dict[str, Any]:
        end = {"done": True, "done_reason": call.finish, "total_duration": 5}
        return end | (self.usage(call) if call.tells_usage else {})


class ConverseShape(Shape):
    """Bedrock's Converse: binary frames."""

    tells_unasked = True

    def start(self, call: Billed) -> Iterator[bytes]:
        """The events before the first token."""
        yield _frame("messageStart", {"role": "assistant"})

    def token(self, call: Billed, word: str) -> bytes:
        """The event of one token."""
        return _frame("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": word}})

    def finish(self, call: Billed) -> Iterator[bytes]:
        """The events after the last token."""
        yield _frame("contentBlockStop", {"contentBlockIndex": 0})
        yield _frame("messageStop", {"stopReason": _stop(call)})
        told = {"usage": self.usage(call)} if call.tells_usage else {}
        yield _frame("metadata", {**told, "metrics": {"latencyMs": 1}})

    def error_event(self, call: Billed) -> bytes:
        """A failure in the middle of a stream whose status was 200."""
        return _frame("throttlingException", {"message": "Too many"}, kind="exception")

    def whole(self, call: Billed) -> dict[str, Any]:
        """The answer in one piece."""
        message = {"role": "assistant", "content": [{"text": call.text}]}
        return {
            "output": {"message": message},
            "stopReason": _stop(call),
            "usage": self.usage(call),
            "metrics": {"latencyMs": 1},
        }

    def http_error(
        self, status: int, kind: str | None, code: str | None, message: str
    ) -> dict[str, Any]:
        """The body of an error."""
        return {
            "__type": kind or _AMAZON.get(status, "InternalServerException"),
            "message": message,
        }

    def usage(self, call: Billed) -> dict[str, Any]:
        """What was billed, as the vendor says it: cached tokens stand beside the others."""
        output = call.shown + call.reasoning
        return {
            "inputTokens": call.input - call.cached,
            "cacheReadInputTokens": call.cached,
            "outputTokens": output,
            "totalTokens": call.input + output,
        }


def _stop(call: Billed) -> str:
    return {"stop": "end_turn", "length": "max_tokens"}.get(call.finish, call.finish)


def _line(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value).encode() + b"\n"


def _frame(name: str, payload: Mapping[str, Any], *, kind: str = "event") -> bytes:
    """One message of AWS' event stream encoding."""
    named = {":message-type": kind, f":{kind}-type": name, ":content-type": "application/json"}
    headers = b"".join(
        bytes([len(key)]) + key.encode() + b"\x07" + struct.pack("!H", len(value)) + value.encode()
        for key, value in named.items()
    )
    body = json.dumps(payload).encode()
    prelude = struct.pack("!II", 12 + len(headers) + len(body) + 4, len(headers))
    message = prelude + struct.pack("!I", zlib.crc32(prelude)) + headers + body
    return message + struct.pack("!I", zlib.crc32(message))
