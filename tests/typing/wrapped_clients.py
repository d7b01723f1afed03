"""What type checkers see: a wrapped client has the type of the given one, and its methods their own signatures."""

# pyright: strict

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, assert_type

import anthropic
import openai
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from glidemq_core.context import RunningJob
from glidemq_core.throttle import Throttle
from glidemq_llm import MeterSettings, Pricing, chat_handler, wrap

assert_type(wrap(openai.AsyncOpenAI()), openai.AsyncOpenAI)
assert_type(wrap(openai.OpenAI(), pricing=Pricing()), openai.OpenAI)
assert_type(wrap(anthropic.AsyncAnthropic(), stream=False), anthropic.AsyncAnthropic)
assert_type(
    wrap(openai.OpenAI(), settings=MeterSettings(slice=50), limits={"*": Throttle(rpm=5)}),
    openai.OpenAI,
)


def completion(model: str, *, temperature: float = 1.0) -> str:
    """Stands for litellm.completion."""
    return f"{model} {temperature}"


assert_type(wrap(completion)("m", temperature=0.5), str)


async def calls(client: openai.AsyncOpenAI) -> None:
    """The overloads of `create` are still told apart."""
    wrapped = wrap(client)
    whole = await wrapped.chat.completions.create(model="m", messages=[])
    assert_type(whole, ChatCompletion)
    stream = await wrapped.chat.completions.create(model="m", messages=[], stream=True)
    assert_type(stream, openai.AsyncStream[ChatCompletionChunk])


assert_type(
    chat_handler({"openai": openai.AsyncOpenAI()}),
    Callable[[RunningJob], Awaitable[dict[str, Any]]],
)
