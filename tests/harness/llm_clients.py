"""The clients of every API that can be wrapped: how each is made for the fake provider, and asked for an answer."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from typing import Any, ClassVar

from tests.harness.provider import Provider


class Api:
    """How the clients of one API are made and asked."""

    name = ""
    sdk = ""
    vendor = "openai"  # whose headers and errors it reads
    is_async = True

    def make(self, provider: Provider, **options: Any) -> Any:
        """An async client."""
        raise NotImplementedError

    def make_now(self, provider: Provider) -> Any:
        """A sync client; where one client answers to both, that one."""
        return self.make(provider)

    async def close(self, client: Any) -> None:
        """End its connections."""
        await client.close()

    def close_now(self, client: Any) -> None:
        """See close; of a sync client."""
        client.close()

    async def stream(self, client: Any, model: str, prompt: str = "say it", **more: Any) -> Any:
        """Ask for a stream."""
        raise NotImplementedError

    async def whole(self, client: Any, model: str, prompt: str = "say it", **more: Any) -> str:
        """Ask for an answer in one piece; its text."""
        raise NotImplementedError

    def whole_now(self, client: Any, model: str) -> str:
        """See whole; by a sync client."""
        raise NotImplementedError

    def stream_now(self, client: Any, model: str) -> Any:
        """See stream; by a sync client."""
        raise NotImplementedError

    def text(self, event: Any) -> str:
        """The text of an event of a stream."""
        raise NotImplementedError

    def is_end(self, event: Any) -> bool:
        """Whether the event says why the answer ended."""
        raise NotImplementedError


def messages(prompt: str) -> list[dict[str, str]]:
    """A conversation of one message."""
    return [{"role": "user", "content": prompt}]


def asking(
    api: Api, client_of: Callable[[Any], Any], model: str, *, is_stream: bool = True
) -> Callable[[Any], Any]:
    """A handler that asks for an answer and returns its text; in a thread where the client blocks.

    Args:
        client_of: The wrapped client for a job.
    """

    async def on_loop(job: Any) -> str:
        if not is_stream:
            return await api.whole(client_of(job), model)
        stream = await api.stream(client_of(job), model)
        return "".join([api.text(event) async for event in stream])

    def in_thread(job: Any) -> str:
        if not is_stream:
            return api.whole_now(client_of(job), model)
        return "".join([api.text(event) for event in api.stream_now(client_of(job), model)])

    return on_loop if api.is_async else in_thread


class OpenAIChat(Api):
    """openai, chat completions."""

    name = "openai.chat"
    sdk = "openai"

    def make(self, provider: Provider, **options: Any) -> Any:
        import openai

        return openai.AsyncOpenAI(base_url=provider.openai_url, api_key="k", **options)

    def make_now(self, provider: Provider) -> Any:
        import openai

        return openai.OpenAI(base_url=provider.openai_url, api_key="k")

    async def stream(self, client: Any, model: str, prompt: str = "say it", **more: Any) -> Any:
        return await client.chat.completions.create(
            model=model, messages=messages(prompt), stream=True, **more
        )

    async def whole(self, client: Any, model: str, prompt: str = "say it", **more: Any) -> str:
        answer = await client.chat.completions.create(
            model=model, messages=messages(prompt), **more
        )
        return answer.choices[0].message.content

    def whole_now(self, client: Any, model: str) -> str:
        answer = client.chat.completions.create(model=model, messages=messages("say it"))
        return answer.choices[0].message.content

    def stream_now(self, client: Any, model: str) -> Any:
        return client.chat.completions.create(model=model, messages=messages("say it"), stream=True)

    def text(self, event: Any) -> str:
        return event.choices[0].delta.content or ""

    def is_end(self, event: Any) -> bool:
        return bool(event.choices[0].finish_reason)


class OpenAIResponses(OpenAIChat):
    """openai, responses."""

    name = "openai.responses"

    async def stream(self, client: Any, model: str, prompt: str = "say it", **more: Any) -> Any:
        return await client.responses.create(model=model, input=prompt, stream=True, **more)

    async def whole(self, client: Any, model: str, prompt: str = "say it", **more: Any) -> str:
        return (await client.responses.create(model=model, input=prompt, **more)).output_text

    def whole_now(self, client: Any, model: str) -> str:
        return client.responses.create(model=model, input="say it").output_text

    def stream_now(self, client: Any, model: str) -> Any:
        return client.responses.create(model=model, input="say it", stream=True)

    def text(self, event: Any) -> str:
        return event.delta if event.type == "response.output_text.delta" else ""

    def is_end(self, event: Any) -> bool:
        return event.type == "response.completed"


class Anthropic(Api):
    """anthropic, messages."""

    name = "anthropic.messages"
    sdk = "anthropic"
    vendor = "anthropic"

    def make(self, provider: Provider, **options: Any) -> Any:
        import anthropic

        return anthropic.AsyncAnthropic(base_url=provider.url, api_key="k", **options)

    def make_now(self, provider: Provider) -> Any:
        import anthropic

        return anthropic.Anthropic(base_url=provider.url, api_key="k")

    async def stream(self, client: Any, model: str, prompt: str = "say it", **more: Any) -> Any:
        more = {"max_tokens": 1000} | more
        return await client.messages.create(
            model=model, messages=messages(prompt), stream=True, **more
        )

    async def whole(self, client: Any, model: str, prompt: str = "say it", **more: Any) -> str:
        more = {"max_tokens": 1000} | more
        answer = await client.messages.create(model=model, messages=messages(prompt), **more)
        return answer.content[0].text

    def whole_now(self, client: Any, model: str) -> str:
        answer = client.messages.create(model=model, messages=messages("say it"), max_tokens=1000)
        return answer.content[0].text

    def stream_now(self, client: Any, model: str) -> Any:
        return client.messages.create(
            model=model, messages=messages("say it"), max_tokens=1000, stream=True
        )

    def text(self, event: Any) -> str:
        return event.delta.text if event.type == "content_block_delta" else ""

    def is_end(self, event: Any) -> bool:
        return event.type == "message_delta"


class LiteLLM(OpenAIChat):
    """The function, with the provider's address bound to it."""

    name = "litellm"
    sdk = "litellm"

    def make(self, provider: Provider, **options: Any) -> Any:
        import litellm

        self._more = {"api_base": provider.openai_url, "api_key": "k"}
        return litellm.acompletion

    def make_now(self, provider: Provider) -> Any:
        import litellm

        self._more = {"api_base": provider.openai_url, "api_key": "k"}
        return litellm.completion

    async def close(self, client: Any) -> None:
        pass

    def close_now(self, client: Any) -> None:
        pass

    async def stream(self, client: Any, model: str, prompt: str = "say it", **more: Any) -> Any:
        more = self._more | more
        return await client(model=f"openai/{model}", messages=messages(prompt), stream=True, **more)

    async def whole(self, client: Any, model: str, prompt: str = "say it", **more: Any) -> str:
        more = self._more | more
        answer = await client(model=f"openai/{model}", messages=messages(prompt), **more)
        return answer.choices[0].message.content

    def whole_now(self, client: Any, model: str) -> str:
        answer = client(model=f"openai/{model}", messages=messages("say it"), **self._more)
        return answer.choices[0].message.content

    def stream_now(self, client: Any, model: str) -> Any:
        turn = messages("say it")
        return client(model=f"openai/{model}", messages=turn, stream=True, **self._more)


class LiteLLMResponses(OpenAIResponses):
    """The same for the Responses API."""

    name = "litellm.responses"
    sdk = "litellm"

    def make(self, provider: Provider, **options: Any) -> Any:
        import litellm

        self._more = {"api_base": provider.openai_url, "api_key": "k"}
        return litellm.aresponses

    def make_now(self, provider: Provider) -> Any:
        import litellm

        self.make(provider)
        return litellm.responses

    async def close(self, client: Any) -> None:
        pass

    def close_now(self, client: Any) -> None:
        pass

    async def stream(self, client: Any, model: str, prompt: str = "say it", **more: Any) -> Any:
        return await client(
            model=self._known(model), input=prompt, stream=True, **self._more, **more
        )

    async def whole(self, client: Any, model: str, prompt: str = "say it", **more: Any) -> str:
        answer = await client(model=self._known(model), input=prompt, **self._more, **more)
        return answer.output[-1].content[0].text

    def whole_now(self, client: Any, model: str) -> str:
        answer = client(model=self._known(model), input="say it", **self._more)
        return answer.output[-1].content[0].text

    def stream_now(self, client: Any, model: str) -> Any:
        return client(model=self._known(model), input="say it", stream=True, **self._more)

    def _known(self, model: str) -> str:
        """Its name, of a model that streams: of others LiteLLM makes streams up from whole answers."""
        import litellm

        name = f"openai/{model}"
        facts = {"litellm_provider": "openai", "supports_native_streaming": True}
        litellm.register_model({model: facts, name: facts})
        return name


class Gemini(Api):
    """google-genai."""

    name = "gemini"
    sdk = "google.genai"

    def make(self, provider: Provider, **options: Any) -> Any:
        from google import genai

        http = {"base_url": provider.url, "api_version": "v1beta"}
        return genai.Client(api_key="k", http_options=http, **options)

    async def close(self, client: Any) -> None:
        await client.aio.aclose()
        client.close()

    async def stream(self, client: Any, model: str, prompt: str = "say it", **more: Any) -> Any:
        return await client.aio.models.generate_content_stream(model=model, contents=prompt, **more)

    async def whole(self, client: Any, model: str, prompt: str = "say it", **more: Any) -> str:
        answer = await client.aio.models.generate_content(model=model, contents=prompt, **more)
        return answer.text

    def whole_now(self, client: Any, model: str) -> str:
        return client.models.generate_content(model=model, contents="say it").text

    def stream_now(self, client: Any, model: str) -> Any:
        return client.models.generate_content_stream(model=model, contents="say it")

    def text(self, event: Any) -> str:
        return event.text or ""


class Mistral(OpenAIChat):
    """mistralai."""

    name = "mistral"
    sdk = "mistralai"

    def make(self, provider: Provider, **options: Any) -> Any:
        from mistralai.client import Mistral

        return Mistral(api_key="k", server_url=f"{provider.url}/mistral", **options)

    def make_now(self, provider: Provider) -> Any:
        return self.make(provider)

    async def close(self, client: Any) -> None:
        with contextlib.suppress(AttributeError):
            await client.sdk_configuration.async_client.aclose()
            client.sdk_configuration.client.close()

    def close_now(self, client: Any) -> None:
        client.sdk_configuration.client.close()

    async def stream(self, client: Any, model: str, prompt: str = "say it", **more: Any) -> Any:
        return await client.chat.stream_async(model=model, messages=messages(prompt), **more)

    async def whole(self, client: Any, model: str, prompt: str = "say it", **more: Any) -> str:
        answer = await client.chat.complete_async(model=model, messages=messages(prompt), **more)
        return answer.choices[0].message.content

    def whole_now(self, client: Any, model: str) -> str:
        answer = client.chat.complete(model=model, messages=messages("say it"))
        return answer.choices[0].message.content

    def stream_now(self, client: Any, model: str) -> Any:
        return client.chat.stream(model=model, messages=messages("say it"))

    def text(self, event: Any) -> str:
        return event.data.choices[0].delta.content or ""


class Cohere(Api):
    """cohere, version 2 of its API."""

    name = "cohere"
    sdk = "cohere"

    def make(self, provider: Provider, **options: Any) -> Any:
        import cohere

        return cohere.AsyncClientV2(api_key="k", base_url=provider.url, **options)

    def make_now(self, provider: Provider) -> Any:
        import cohere

        return cohere.ClientV2(api_key="k", base_url=provider.url)

    async def close(self, client: Any) -> None:
        await client._client_wrapper.httpx_client.httpx_client.aclose()

    def close_now(self, client: Any) -> None:
        client._client_wrapper.httpx_client.httpx_client.close()

    async def stream(self, client: Any, model: str, prompt: str = "say it", **more: Any) -> Any:
        return client.chat_stream(model=model, messages=messages(prompt), **more)

    async def whole(self, client: Any, model: str, prompt: str = "say it", **more: Any) -> str:
        answer = await client.chat(model=model, messages=messages(prompt), **more)
        return answer.message.content[0].text

    def whole_now(self, client: Any, model: str) -> str:
        answer = client.chat(model=model, messages=messages("say it"))
        return answer.message.content[0].text

    def stream_now(self, client: Any, model: str) -> Any:
        return client.chat_stream(model=model, messages=messages("say it"))

    def text(self, event: Any) -> str:
        return event.delta.message.content.text if event.type == "content-delta" else ""


class Ollama(Api):
    """ollama."""

    name = "ollama"
    sdk = "ollama"

    def make(self, provider: Provider, **options: Any) -> Any:
        import ollama

        return ollama.AsyncClient(host=provider.url, **options)

    def make_now(self, provider: Provider) -> Any:
        import ollama

        return ollama.Client(host=provider.url)

    async def close(self, client: Any) -> None:
        await client._client.aclose()

    def close_now(self, client: Any) -> None:
        client._client.close()

    async def stream(self, client: Any, model: str, prompt: str = "say it", **more: Any) -> Any:
        return await client.chat(model=model, messages=messages(prompt), stream=True, **more)

    async def whole(self, client: Any, model: str, prompt: str = "say it", **more: Any) -> str:
        answer = await client.chat(model=model, messages=messages(prompt), **more)
        return answer.message.content

    def whole_now(self, client: Any, model: str) -> str:
        return client.chat(model=model, messages=messages("say it")).message.content

    def stream_now(self, client: Any, model: str) -> Any:
        return client.chat(model=model, messages=messages("say it"), stream=True)

    def text(self, event: Any) -> str:
        return event.message.content or ""


class Bedrock(Api):
    """boto3's bedrock-runtime, which blocks: for handlers in threads."""

    name = "bedrock"
    sdk = "boto3"
    is_async = False

    def make(self, provider: Provider, **options: Any) -> Any:
        import boto3
        from botocore.config import Config

        return boto3.client(
            "bedrock-runtime",
            endpoint_url=provider.url,
            region_name="us-east-1",
            aws_access_key_id="k",
            aws_secret_access_key="s",
            config=Config(**options),
        )

    async def close(self, client: Any) -> None:
        client.close()

    def whole_now(self, client: Any, model: str) -> str:
        answer = client.converse(modelId=model, messages=self._turns)
        block = answer["output"]["message"]["content"][0]
        return block["text"] if "text" in block else json.dumps(block["toolUse"]["input"])

    def stream_now(self, client: Any, model: str) -> Any:
        return client.converse_stream(modelId=model, messages=self._turns)["stream"]

    def text(self, event: Any) -> str:
        delta = event.get("contentBlockDelta", {}).get("delta", {})
        return delta.get("text") or delta.get("toolUse", {}).get("input", "")

    _turns: ClassVar = [{"role": "user", "content": [{"text": "say it"}]}]
