"""How the fake provider is told to behave in one call."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

BEFORE_HEADERS = -1
FAULTS = ("hang", "malformed", "disconnect", "reset", "error", "end")


@dataclass(frozen=True, kw_only=True)
class Behaviour:
    """One call's answer. It crosses to the provider as JSON.

    Attributes:
        tokens: Pieces of text, and as many billed output tokens; the request's limit of tokens cuts them off ("length").
        first, pace: Seconds before the first token, and between two.
        text: The whole text instead of "t0 t1 t2 ...": its words are the tokens.
        input: Billed input tokens; None: the words of the request.
        cached: How many of them came from the provider's cache.
        reasoning: Output tokens of thinking, billed beside the text's; some vendors stream them.
        citation: Output tokens of cited sources, which Perplexity bills.
        finish: Reason of the end, in OpenAI's words.
        tools: Tools that it calls after the text, each {name, arguments (an object, or text as it is), id?}; not billed.
            OpenAI's chat, Anthropic's messages and Gemini have them.
        signed: Its call of tools comes with thinking and signatures, and a request that does not send them back as they
            were, or sends those of another vendor, is refused: at Anthropic, Gemini, DeepSeek and OpenRouter.
        usage: False: say nothing of usage (it is billed all the same).
        status, error_type, error_code, message, headers: An HTTP error at once, of which nothing is billed. `headers` are
            sent with every answer.
        faults: What happens *before* the n-th token (from 0; `tokens`: after the last; -1: before the headers):
            "hang" until the caller leaves; "gate:NAME" until FakeProvider.open("NAME"); "alive:NAME" the same
            in a stream, with a comment every 50 ms; "malformed" event, the stream then goes on; "disconnect" in the middle of the body; "reset" of the connection; "error" event under status 200 (overloaded);
            "end": the stream ends properly, but without its last events.
        tag: Any text; it stands in the log.
    """

    tokens: int = 10
    first: float = 0.0
    pace: float = 0.0
    text: str | None = None
    input: int | None = None
    cached: int = 0
    reasoning: int = 0
    citation: int = 0
    finish: str = "stop"
    tools: Sequence[Mapping[str, Any]] = ()
    signed: bool = False
    usage: bool = True
    status: int = 200
    error_type: str | None = None
    error_code: str | None = None
    message: str = "the fake provider was told to fail"
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    faults: Mapping[int, str] = field(default_factory=dict[int, str])
    tag: str = ""

    def __post_init__(self) -> None:
        for fault in self.faults.values():
            if fault not in FAULTS and not fault.startswith(("gate:", "alive:")):
                raise ValueError(f"unknown fault {fault!r}")

    @property
    def ending(self) -> str:
        """Reason of the end."""
        return "tool_calls" if self.tools and self.finish == "stop" else self.finish

    @property
    def words(self) -> list[str]:
        """The tokens' texts; joined they are the whole text."""
        if self.text is None:
            return [f"t{number} " for number in range(self.tokens)]
        words = self.text.split(" ")
        return [f"{word} " for word in words[:-1]] + words[-1:]

    @classmethod
    def read(cls, plain: Mapping[str, Any]) -> Self:
        """From JSON.

        Raises:
            TypeError: It has a field nobody knows.
        """
        faults = {int(at): fault for at, fault in plain.get("faults", {}).items()}
        given: dict[str, Any] = {**plain, "faults": faults}
        return cls(**given)

    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        return dataclasses.asdict(self)

    def as_prompt(self) -> str:
        """A user message that asks for this behaviour, for a job that carries its own."""
        return json.dumps({"fake": self.plain()})
