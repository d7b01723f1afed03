"""The openai package (2.x and 3.x): AsyncOpenAI, OpenAI, the Azure clients, and every compatible server by base_url."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from glidemq_llm._read import fields
from glidemq_llm.metering import MeterSettings
from glidemq_llm.providers._hooks import Hook, Wrapping, as_they_are, install

_VENDORS = {
    "openai.com": "openai",
    "openai.azure.com": "azure",
    "groq.com": "groq",
    "together.xyz": "together",
    "together.ai": "together",
    "fireworks.ai": "fireworks",
    "deepseek.com": "deepseek",
    "x.ai": "xai",
    "openrouter.ai": "openrouter",
    "perplexity.ai": "perplexity",
    "mistral.ai": "mistral",
    "googleapis.com": "google",
}


def wrap(client: Any, settings: MeterSettings, job: Any) -> Any:
    """A metered copy of the client: the same class, sharing its connections."""
    outer = client.copy()
    inner = client.copy(max_retries=settings.sdk_retries)
    wrapping = Wrapping(provider=vendor_of(str(client.base_url)), settings=settings, job=job)
    is_async = type(client).__name__.startswith("Async")
    for hook in _HOOKS:
        install(outer, inner, hook, wrapping, is_async=is_async)

    def copy(**changes: Any) -> Any:
        return wrap(client.copy(**changes), settings, job)

    outer.copy = outer.with_options = copy
    return outer


CHAT_API = "openai.chat"


def quiet(client: Any) -> Any:
    """A copy that does not retry by itself."""
    return client.copy(max_retries=0)


def chat_request(model: str, messages: list[Any], params: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a streamed chat call."""
    arguments = {**params, "model": model, "messages": messages, "stream": True}
    return _with_usage(arguments)[0]


async def send_chat(client: Any, request: dict[str, Any]) -> Any:
    """Send it; answers the SDK's stream."""
    return await client.chat.completions.create(**request)


def vendor_of(base_url: str) -> str:
    """Who answers at a base URL; "openai" for a server that only speaks its dialect."""
    host = urlsplit(base_url).hostname or ""
    return next(
        (
            name
            for ending, name in _VENDORS.items()
            if host == ending or host.endswith(f".{ending}")
        ),
        "openai",
    )


def _with_usage(arguments: dict[str, Any]) -> tuple[dict[str, Any], Callable[[Any], bool]]:
    """Have a stream state its usage; a caller who did not ask for that chunk does not see it."""
    asked = arguments.get("stream_options")
    options = dict(asked) if isinstance(asked, dict) else {}
    if not arguments.get("stream") or "include_usage" in options:
        return as_they_are(arguments)
    options["include_usage"] = True
    return {**arguments, "stream_options": options}, _is_only_usage


def _is_only_usage(event: Any) -> bool:
    chunk = fields(event)
    return not chunk.get("choices") and chunk.get("usage") is not None


_HOOKS = (
    Hook(path="chat.completions", method="create", api="openai.chat", prepare=_with_usage),
    Hook(path="chat.completions", method="parse", api="openai.chat", prepare=as_they_are),
    Hook(path="responses", method="create", api="openai.responses", prepare=as_they_are),
    Hook(path="responses", method="parse", api="openai.responses", prepare=as_they_are),
    Hook(path="embeddings", method="create", api="openai.chat", prepare=as_they_are),
)
