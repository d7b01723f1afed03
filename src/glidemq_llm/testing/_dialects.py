"""The dialects of servers that are compatible with OpenAI: what each calls what it billed, and where it says it.

A vendor that states its own price bills a millionth of a dollar a token.
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any, ClassVar

from glidemq_llm.testing._shapes import Billed, Shape, data
from glidemq_llm.testing._signed import details, signed_id, thoughts

_TOKEN_USD = Decimal("0.000001")
_TICKS = 10**10  # xAI's unit of money, to the dollar


class Azure(Shape):
    """The first chunk has the prompt's filter results, no choice and no model."""

    def start(self, call: Billed) -> Iterator[bytes]:
        """The events before the first token."""
        results = [{"prompt_index": 0, "content_filter_results": {"hate": {"filtered": False}}}]
        told: dict[str, Any] = {"choices": [], "model": "", "prompt_filter_results": results}
        yield data(self._chunk(call, {}) | told)
        yield from super().start(call)


class Compatible(Shape):
    """The usage is on the finish chunk, asked for or not; the reasoning is streamed."""

    tells_unasked = True
    thought: ClassVar[str] = "reasoning_content"

    def token(self, call: Billed, word: str) -> bytes:
        """The event of one token; the reasoning comes before the first."""
        thoughts = "hm " * call.reasoning if call.shown == 1 else ""
        said = data(self._chunk(call, {self.thought: thoughts})) if thoughts else b""
        return said + super().token(call, word)

    def finish(self, call: Billed) -> Iterator[bytes]:
        """The events after the last token."""
        yield data(self._chunk(call, {}, call.finish) | self._told(call))
        yield b"data: [DONE]\n\n"

    def whole(self, call: Billed) -> dict[str, Any]:
        """The answer in one piece."""
        whole = super().whole(call)
        if call.reasoning:
            whole["choices"][0]["message"][self.thought] = "hm " * call.reasoning
        return whole

    def _told(self, call: Billed) -> dict[str, Any]:
        return {"usage": self.usage(call)} if call.tells_usage else {}

    def _counts(self, call: Billed, output: int) -> dict[str, Any]:
        return {
            "prompt_tokens": call.input,
            "completion_tokens": output,
            "total_tokens": call.input + output,
        }


class Groq(Compatible):
    """The usage comes twice: as `x_groq.usage` and on a chunk of its own. Limits are in the headers."""

    thought = "reasoning"

    def headers(self) -> dict[str, str]:
        """Requests are counted by the day, tokens by the minute."""
        return {
            "x-ratelimit-limit-requests": "14400",
            "x-ratelimit-remaining-requests": "14399",
            "x-ratelimit-reset-requests": "6s",
            "x-ratelimit-limit-tokens": "6000",
            "x-ratelimit-remaining-tokens": "5950",
            "x-ratelimit-reset-tokens": "500ms",
        }

    def finish(self, call: Billed) -> Iterator[bytes]:
        """The events after the last token."""
        told = self._told(call)
        yield data(self._chunk(call, {}, call.finish) | {"x_groq": {"id": call.id, **told}})
        if told:
            yield data({**self._chunk(call, {}), "choices": [], **told})
        yield b"data: [DONE]\n\n"

    def usage(self, call: Billed) -> dict[str, Any]:
        """What was billed, as the vendor says it."""
        times = {"queue_time": 0.005, "prompt_time": 0.01, "completion_time": 0.2}
        return super().usage(call) | times


class DeepSeek(Compatible):
    """Cached tokens have a field of their own, beside those that were not cached."""

    name = "deepseek"

    def start(self, call: Billed) -> Iterator[bytes]:
        """The events before the first token."""
        yield from super().start(call)
        if signed := signed_id(call.tools):
            yield data(self._chunk(call, {self.thought: thoughts(signed)[:5]}))
            yield data(self._chunk(call, {self.thought: thoughts(signed)[5:]}))

    def usage(self, call: Billed) -> dict[str, Any]:
        """What was billed, as the vendor says it."""
        return super().usage(call) | {
            "prompt_cache_hit_tokens": call.cached,
            "prompt_cache_miss_tokens": call.input - call.cached,
        }


class XAI(Compatible):
    """Reasoning is not in the completion tokens, only in the total. It states its price, in ticks."""

    def usage(self, call: Billed) -> dict[str, Any]:
        """What was billed, as the vendor says it."""
        total = call.input + call.shown + call.reasoning
        return super().usage(call) | {
            "completion_tokens": call.shown,
            "total_tokens": total,
            "num_sources_used": 0,
            "cost_in_usd_ticks": int(total * _TOKEN_USD * _TICKS),
        }


class OpenRouter(Compatible):
    """Comments keep the connection alive while it waits. It states its price; its errors carry the upstream's."""

    thought = "reasoning"
    name = "openrouter"

    def start(self, call: Billed) -> Iterator[bytes]:
        """The events before the first token."""
        yield b": OPENROUTER PROCESSING\n\n" * 2
        yield from super().start(call)
        if signed := signed_id(call.tools):
            clear, encrypted = details(signed)
            first = {"text": clear["text"][:5], "signature": None}
            rest = {"text": clear["text"][5:], "signature": None}
            end = {"text": None}
            for piece in (clear | first, clear | rest, clear | end, encrypted):
                yield data(self._chunk(call, {"reasoning_details": [piece]}))

    def finish(self, call: Billed) -> Iterator[bytes]:
        """The events after the last token."""
        yield data(self._chunk(call, {}, call.finish))
        yield data(self._chunk(call, {"content": ""}) | self._told(call))
        yield b"data: [DONE]\n\n"

    def usage(self, call: Billed) -> dict[str, Any]:
        """What was billed, as the vendor says it."""
        cost = float((call.input + call.shown + call.reasoning) * _TOKEN_USD)
        return super().usage(call) | {
            "cost": cost,
            "is_byok": False,
            "cost_details": {"upstream_inference_cost": cost},
        }

    def http_error(
        self, status: int, kind: str | None, code: str | None, message: str
    ) -> dict[str, Any]:
        """The body of an error."""
        metadata = {"raw": message, "provider_name": "Fake"}
        return {"error": {"message": message, "code": status, "metadata": metadata}}


class Perplexity(Compatible):
    """Running totals in every chunk, priced in the last; reasoning and sources are in no other sum."""

    def start(self, call: Billed) -> Iterator[bytes]:
        """The events before the first token."""
        yield data(self._chunk(call, {"role": "assistant", "content": ""}) | self._sources())

    def token(self, call: Billed, word: str) -> bytes:
        """The event of one token."""
        told = self._told(call)
        if told:
            told["usage"]["cost"]["total_cost"] = 0.0
        return data(self._chunk(call, {"content": word}) | told)

    def finish(self, call: Billed) -> Iterator[bytes]:
        """The events after the last token."""
        yield data(self._chunk(call, {}, call.finish) | self._sources() | self._told(call))
        yield b"data: [DONE]\n\n"

    def whole(self, call: Billed) -> dict[str, Any]:
        """The answer in one piece."""
        return super().whole(call) | self._sources()

    def usage(self, call: Billed) -> dict[str, Any]:
        """What was billed, as the vendor says it."""
        billed = call.input + call.shown + call.reasoning + call.citation
        return self._counts(call, call.shown) | {
            "reasoning_tokens": call.reasoning,
            "citation_tokens": call.citation,
            "num_search_queries": 1,
            "search_context_size": "low",
            "cost": {"request_cost": 0.0, "total_cost": float(billed * _TOKEN_USD)},
        }

    def _sources(self) -> dict[str, Any]:
        return {"citations": ["https://tides.example/moon"]}


class Together(Compatible):
    """No details: cached tokens stand beside the counts, reasoning is not told from the rest."""

    def usage(self, call: Billed) -> dict[str, Any]:
        """What was billed, as the vendor says it."""
        counts = self._counts(call, call.shown + call.reasoning)
        return counts | {"cached_tokens": call.cached}


class Fireworks(Compatible):
    """Cached tokens in the details, reasoning not told from the rest."""

    def usage(self, call: Billed) -> dict[str, Any]:
        """What was billed, as the vendor says it."""
        counts = self._counts(call, call.shown + call.reasoning)
        return counts | {"prompt_tokens_details": {"cached_tokens": call.cached}}


class VLLM(Fireworks):
    """The usage on a chunk of its own, if asked for."""

    tells_unasked = False

    def finish(self, call: Billed) -> Iterator[bytes]:
        """The events after the last token."""
        yield data(self._chunk(call, {}, call.finish))
        if told := self._told(call):
            yield data({**self._chunk(call, {}), "choices": [], **told})
        yield b"data: [DONE]\n\n"


class LlamaCpp(VLLM):
    """Its timings, which count tokens as well, are on the last chunk, asked for or not."""

    def finish(self, call: Billed) -> Iterator[bytes]:
        """The events after the last token."""
        timings = {"timings": self._timings(call)}
        told = self._told(call)
        yield data(self._chunk(call, {}, call.finish) | ({} if told else timings))
        if told:
            yield data({**self._chunk(call, {}), "choices": [], **told, **timings})
        yield b"data: [DONE]\n\n"

    def whole(self, call: Billed) -> dict[str, Any]:
        """The answer in one piece."""
        return super().whole(call) | {"timings": self._timings(call)}

    def _timings(self, call: Billed) -> dict[str, Any]:
        return {
            "cache_n": call.cached,
            "prompt_n": call.input - call.cached,
            "prompt_ms": 5.0,
            "predicted_n": call.shown + call.reasoning,
            "predicted_ms": 100.0,
        }


# What stands behind the provider's address in a client's base URL, and the dialect that is spoken there.
DIALECTS: dict[str, tuple[str, Shape]] = {
    "azure": ("/azure", Azure()),
    "groq": ("/groq/openai/v1", Groq()),
    "deepseek": ("/deepseek", DeepSeek()),
    "xai": ("/xai/v1", XAI()),
    "openrouter": ("/openrouter/api/v1", OpenRouter()),
    "perplexity": ("/perplexity", Perplexity()),
    "together": ("/together/v1", Together()),
    "fireworks": ("/fireworks/inference/v1", Fireworks()),
    "vllm": ("/vllm/v1", VLLM()),
    "llama.cpp": ("/llama.cpp/v1", LlamaCpp()),
}
