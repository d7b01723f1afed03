"""The openai package (2.x and 3.x): AsyncOpenAI, OpenAI, the Azure clients, and every compatible server by base_url."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from glidemq_llm._read import fields
from glidemq_llm.providers._hooks import (
    Arguments,
    Hook,
    WatchedSockets,
    Wrapping,
    as_they_are,
    install,
    is_async_client,
    reading,
    remember,
    resource,
    sync_timeout,
    unwrapped,
    watch_posts,
    watched,
)
from glidemq_llm.settings import MeterSettings

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
    wrapping = Wrapping(
        provider=_provider_of(client),
        settings=settings,
        job=job,
        sync_timeout=sync_timeout(client, settings),
    )
    is_async = is_async_client(client)
    watch_posts(outer, wrapping, _PAID, is_async=is_async)
    _watch_sockets(outer, client, wrapping)
    for hook in _HOOKS:
        install(outer, inner, hook, wrapping, is_async=is_async)

    def copy(**changes: Any) -> Any:
        return wrap(client.copy(**changes), settings, job)

    outer.copy = outer.with_options = copy
    remember(outer, client)
    return outer


def _watch_sockets(outer: Any, client: Any, wrapping: Wrapping) -> None:
    for holder, path in (
        (outer, "realtime"),
        (outer, "live"),
        (outer.beta, "beta.realtime"),
    ):
        name = path.rpartition(".")[2]
        if name in dir(holder):
            setattr(holder, name, WatchedSockets(client, path, wrapping))
    for holder in (outer.responses, resource(outer, "beta.responses")):
        if hasattr(holder, "connect"):
            holder.connect = watched(
                holder.connect, "responses.connect", wrapping, is_async=is_async_client(client)
            )


CHAT_API = "openai.chat"


def quiet(client: Any) -> Any:
    """A copy that does not retry by itself."""
    return unwrapped(client).copy(max_retries=0)


def chat_request(model: str, messages: list[Any], params: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a streamed chat call."""
    arguments = {**params, "model": model, "messages": messages, "stream": True}
    return _with_usage(arguments)[0]


async def send_chat(client: Any, request: dict[str, Any]) -> Any:
    """Send it; answers the SDK's stream."""
    return await client.chat.completions.create(**request)


RESPONSES_API = "openai.responses"


def has_responses(client: Any) -> bool:
    """Whether the client has the Responses API."""
    return hasattr(client, "responses")


def responses_request(model: str, input: Any, params: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a streamed call of the Responses API."""
    return {**params, "model": model, "input": input, "stream": True}


async def send_responses(client: Any, request: dict[str, Any]) -> Any:
    """Send it; answers the SDK's stream."""
    return await client.responses.create(**request)


async def send_embeddings(client: Any, request: dict[str, Any]) -> Any:
    """Ask for the vectors of a batch of texts."""
    return await client.embeddings.create(**request)


def vectors_of(answer: Any) -> list[list[float]]:
    """The vectors of an answer, in the order of the texts."""
    return [item.embedding for item in sorted(answer.data, key=lambda item: item.index)]


def _provider_of(client: Any) -> str:
    """Who answers a client. An Azure deployment may have any address of its owner's."""
    is_azure = any(base.__name__ == "BaseAzureClient" for base in type(client).__mro__)
    return "azure" if is_azure else vendor_of(str(client.base_url))


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


def _with_usage(arguments: dict[str, Any]) -> Arguments:
    """Have a stream state its usage; a caller who did not ask for that chunk does not see it."""
    options = dict(fields(arguments.get("stream_options")))
    if not arguments.get("stream") or "include_usage" in options:
        return as_they_are(arguments)
    options["include_usage"] = True
    return {**arguments, "stream_options": options}, _is_only_usage


def _is_only_usage(event: Any) -> bool:
    chunk = fields(event)
    return not chunk.get("choices") and chunk.get("usage") is not None


__all__ = ["reading"]

# What is paid for, by the path of its request. Only what is not metered gets that far, and what is posted by hand.
_PAID = """
    /chat/completions /completions /responses /responses/compact /embeddings /decisions
    /images/generations /images/edits /images/variations /audio/speech /audio/transcriptions /audio/translations
    /videos /videos/edits /videos/extensions /videos/*/remix /batches /fine_tuning/jobs /evals/*/runs
    /threads/runs /threads/*/runs /threads/*/runs/*/submit_tool_outputs
    /agents/sessions /agents/sessions/*/events /agents/automations/*/invocations /realtime/calls /live/sessions
""".split()
_CHAT = "openai.chat"
_HOOKS = (
    Hook(path="chat.completions", method="create", api=_CHAT, prepare=_with_usage),
    Hook(path="chat.completions", method="parse", api=_CHAT),
    # The same resource a second time, under the name that it had before.
    Hook(path="beta.chat.completions", method="create", api=_CHAT, prepare=_with_usage),
    Hook(path="beta.chat.completions", method="parse", api=_CHAT),
    Hook(path="completions", method="create", api=_CHAT, prepare=_with_usage),
    Hook(path="responses", method="create", api="openai.responses"),
    Hook(path="responses", method="parse", api="openai.responses"),
    Hook(path="responses", method="compact", api="openai.responses", is_text=False),
    Hook(path="beta.responses", method="create", api="openai.responses"),
    Hook(path="beta.responses", method="compact", api="openai.responses", is_text=False),
    Hook(path="embeddings", method="create", api=_CHAT, is_text=False, has_answer=False),
    *(
        Hook(path=path, method=method, api="openai.media", is_text=False)
        for path, method in (
            ("images", "generate"),
            ("images", "edit"),
            ("images", "create_variation"),
            ("audio.transcriptions", "create"),
            ("audio.translations", "create"),
        )
    ),
)
