"""The anthropic package (1.x and 2.x): AsyncAnthropic, Anthropic and their Bedrock and Vertex kin."""

from __future__ import annotations

import functools
from typing import Any

from glidemq_llm._drivers import AsyncDriver
from glidemq_llm._drivers_sync import SyncDriver
from glidemq_llm.providers._chat_requests import anthropic_request
from glidemq_llm.providers._hooks import (
    Hook,
    Wrapping,
    install,
    is_async_client,
    meter_stream,
    meter_stream_async,
    never,
    reading,
    remember,
    resource,
    sync_timeout,
    unwrapped,
    watch_posts,
)
from glidemq_llm.settings import MeterSettings

_API = "anthropic.messages"
_RESOURCES = ("messages", "beta.messages")
# What is paid for, by the path of its request. Only what is not metered gets that far, and what is posted by hand.
_PAID = """
    /v1/messages /v1/messages/batches /v1/complete /v1/sessions /v1/sessions/*/events /v1/deployments/*/run /v1/dreams
""".split()


def wrap(client: Any, settings: MeterSettings, job: Any) -> Any:
    """A metered copy of the client: the same class, sharing its connections."""
    outer = client.copy()
    inner = client.copy(max_retries=settings.sdk_retries)
    wrapping = Wrapping(
        provider="anthropic",
        settings=settings,
        job=job,
        sync_timeout=sync_timeout(client, settings),
    )
    is_async = is_async_client(client)
    watch_posts(outer, wrapping, _PAID, is_async=is_async)
    for path in _RESOURCES:
        for method in ("create", "parse"):
            hook = Hook(path=path, method=method, api=_API)
            install(outer, inner, hook, wrapping, is_async=is_async)
        _install_stream(outer, inner, path, wrapping, is_async=is_async)

    def copy(**changes: Any) -> Any:
        return wrap(client.copy(**changes), settings, job)

    outer.copy = outer.with_options = copy
    remember(outer, client)
    return outer


__all__ = ["reading"]

CHAT_API = _API


def quiet(client: Any) -> Any:
    """A copy that does not retry by itself."""
    return unwrapped(client).copy(max_retries=0)


def chat_request(model: str, messages: list[Any], params: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a streamed call, from messages in the chat format."""
    return {**anthropic_request(model, messages, params), "stream": True}


async def send_chat(client: Any, request: dict[str, Any]) -> Any:
    """Send it; answers the SDK's stream."""
    return await client.messages.create(**request)


def _install_stream(
    outer: Any, inner: Any, path: str, wrapping: Wrapping, *, is_async: bool
) -> None:
    """`messages.stream()` sends by itself when its manager is entered: meter the raw stream below it."""
    holder, quiet = resource(outer, path), resource(inner, path)
    if not hasattr(holder, "stream"):
        return
    plain, send = holder.stream, quiet.stream
    hook = Hook(path=path, method="stream", api=_API)

    @functools.wraps(plain)
    def stream(*args: Any, **kwargs: Any) -> Any:
        job = wrapping.current(is_async=is_async)
        if job is None:
            return plain(*args, **kwargs)
        call = wrapping.call(hook, kwargs, job)
        if not is_async:
            kwargs = wrapping.bounded(kwargs)
        manager: object = send(*args, **kwargs)
        # The manager's one private field that is a request yet to be sent: an awaitable, or a function.
        name = next(name for name in vars(manager) if name.endswith("__api_request"))

        def request() -> Any:
            """The manager's request, or that of another one if the call is admitted with other arguments."""
            sent = call.sent(kwargs)
            return pending if sent is kwargs else getattr(send(*args, **sent), name)

        pending = getattr(manager, name)
        metered = (
            _request_async(pending, request, AsyncDriver(job, call))
            if is_async
            else _request(request, SyncDriver(job, call))
        )
        setattr(manager, name, metered)
        return manager

    holder.stream = stream


async def _request_async(pending: Any, request: Any, driver: AsyncDriver) -> Any:
    async def send() -> Any:
        return await request()

    try:
        raw = await driver.open(send)
    finally:
        pending.close()  # it has not begun if the call was refused, or made smaller
    await meter_stream_async(raw, driver, never)
    return raw


def _request(request: Any, driver: SyncDriver) -> Any:
    def send_now() -> Any:
        return request()()

    def send() -> Any:
        raw = driver.open(send_now)
        meter_stream(raw, driver, never)
        return raw

    return send
