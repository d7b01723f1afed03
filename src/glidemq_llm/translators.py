"""From the events of a stream to pieces of the common vocabulary, one translator per API.

A translator belongs to one stream: it remembers which tool calls are open and why the answer ended.
Events may be the SDK's objects or decoded JSON. Events without content (pings, headers, block
borders) give no pieces; they are signs of life all the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from glidemq_llm._translate_openai import (
    ChatTranslator,
    MediaTranslator,
    ResponsesTranslator,
)
from glidemq_llm._translate_others import (
    AnthropicTranslator,
    BedrockTranslator,
    CohereTranslator,
    GeminiTranslator,
    OllamaTranslator,
)
from glidemq_llm.chunks import Finish, Piece


class Translator(Protocol):
    """Turns the events of one stream into pieces.

    Attributes:
        finish: Why the answer ended; None while no terminal marker has been seen. A stream that
            ends while this is None was cut.
    """

    @property
    def finish(self) -> Finish | None:
        """See above."""
        ...

    def translate(self, event: object) -> list[Piece]:
        """The pieces of one event, in order; usually none or one."""
        ...

    def is_terminal(self, event: object) -> bool:
        """Whether the event says that the answer is complete (usage may still follow)."""
        ...


def translator(api: str) -> Translator:
    """A new translator for a stream.

    Args:
        api: "openai.chat" (and all that speak its dialect, Mistral included), "openai.responses", "openai.media",
            "anthropic.messages", "gemini", "cohere", "ollama" or "bedrock".

    Raises:
        KeyError: There is no such API here.
    """
    return _TRANSLATORS[api]()


_TRANSLATORS: dict[str, Callable[[], Translator]] = {
    "openai.chat": ChatTranslator,
    "openai.responses": ResponsesTranslator,
    "openai.media": MediaTranslator,
    "anthropic.messages": AnthropicTranslator,
    "gemini": GeminiTranslator,
    "cohere": CohereTranslator,
    "ollama": OllamaTranslator,
    "bedrock": BedrockTranslator,
}
