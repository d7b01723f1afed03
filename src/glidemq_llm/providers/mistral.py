"""mistralai: `complete` and `stream` of chats, agents and code to fill in, `embeddings.create`, `ocr.process`, and their
`_async` kin.

Its client answers to both, so that one wrapped client serves sync and async handlers.
"""

from __future__ import annotations

from math import ceil
from typing import Any

from glidemq_llm._drivers import AsyncDriver
from glidemq_llm._drivers_sync import SyncDriver
from glidemq_llm.providers._functions import (
    Meter,
    copy_with,
    shorter,
    stream_async,
    stream_sync,
    whole_async,
    whole_sync,
)
from glidemq_llm.providers._hooks import (
    Wrapping,
    never,
    reading,
    remember,
    unwrapped,
    watched,
)
from glidemq_llm.settings import MeterSettings

CHAT_API = "openai.chat"

__all__ = ["reading"]


def wrap(client: Any, settings: MeterSettings, job: Any) -> Any:
    """A metered copy of the client: the same class, sharing its connections."""
    wrapping = Wrapping(provider="mistral", settings=settings, job=job)
    change = _no_retries if settings.sdk_retries == 0 else dict
    text = Meter(wrapping=wrapping, api=CHAT_API, change=change)
    vectors = Meter(wrapping=wrapping, api=CHAT_API, change=change, is_text=False)
    limit = shorter(client.sdk_configuration.timeout_ms, ceil(settings.longest_silence * 1000))

    def bounded(arguments: dict[str, Any]) -> dict[str, Any]:
        return {"timeout_ms": limit, **change(arguments)}

    blocking = Meter(wrapping=wrapping, api=CHAT_API, change=bounded)

    def talking(resource: Any) -> Any:
        return copy_with(
            resource,
            complete=whole_sync(resource.complete, text),
            complete_async=whole_async(resource.complete_async, text),
            stream=stream_sync(resource.stream, blocking, _attach),
            stream_async=stream_async(resource.stream_async, text, _attach_async),
        )

    embeddings, ocr, jobs = client.embeddings, client.ocr, client.batch.jobs
    wrapped = copy_with(
        client,
        chat=talking(client.chat),
        agents=talking(client.agents),
        fim=talking(client.fim),
        embeddings=copy_with(
            embeddings,
            create=whole_sync(embeddings.create, vectors),
            create_async=whole_async(embeddings.create_async, vectors),
        ),
        ocr=copy_with(
            ocr,
            process=whole_sync(ocr.process, vectors),
            process_async=whole_async(ocr.process_async, vectors),
        ),
        batch=copy_with(
            client.batch,
            jobs=copy_with(
                jobs,
                create=watched(jobs.create, "batch.jobs.create", wrapping, is_async=False),
                create_async=watched(
                    jobs.create_async, "batch.jobs.create_async", wrapping, is_async=True
                ),
            ),
        ),
    )
    remember(wrapped, client)
    return wrapped


def quiet(client: Any) -> Any:
    """The client as it is; each call says that it is not to be retried."""
    return unwrapped(client)


def chat_request(model: str, messages: list[Any], params: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a streamed call: Mistral has the chat format."""
    return {**params, "model": model, "messages": messages}


async def send_chat(client: Any, request: dict[str, Any]) -> Any:
    """Send it; answers the SDK's stream."""
    return await client.chat.stream_async(**_no_retries(request))


def _no_retries(arguments: dict[str, Any]) -> dict[str, Any]:
    return {"retries": None, **arguments}


def _attach_async(stream: Any, driver: AsyncDriver) -> Any:
    stream.generator = driver.events(stream.generator, never, stream.close)
    stream.close = driver.close
    return stream


def _attach(stream: Any, driver: SyncDriver) -> Any:
    stream.generator = driver.events(stream.generator, never, stream.close)
    stream.close = driver.close
    return stream
