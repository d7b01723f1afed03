"""The caller's side of the fake provider: its process, its log and its plans."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from glidemq_core.errors import InvalidOption
from glidemq_llm.testing._dialects import DIALECTS
from glidemq_llm.testing._plan import Behaviour

_PLACES = {
    **dict.fromkeys(("anthropic", "google", "vertex", "cohere", "ollama", "bedrock"), ""),
    "openai": "/v1",
    "mistral": "/mistral",
}
_POLL = 0.005


@dataclass(frozen=True, kw_only=True)
class ProviderCall:
    """One call as the provider saw it. Times are seconds of time.monotonic(), which all processes share.

    Attributes:
        input, cached, output: Billed tokens; `input` includes the cached ones. 0 while the call runs.
        outcome: "" while it runs; "complete", "caller left", "limited", or the fault that ended it.
        limit: The request's limit of output tokens.
        tool_results: What its last messages answer to calls of tools. `tool_choice`: as in the request.
        key: The request's header Idempotency-Key.
    """

    number: int
    path: str
    model: str
    tag: str
    key: str
    is_stream: bool
    limit: int | None
    tool_results: list[Any]
    tool_choice: Any
    started: float
    first: float | None = None
    ended: float | None = None
    status: int = 0
    outcome: str = ""
    input: int = 0
    cached: int = 0
    output: int = 0


class FakeProvider:
    """The process and its log; a context manager. Its methods block for a few milliseconds at most, except the waits.

    Who has the end of an answer finds its call in the log, ended and billed. That its caller has left, the provider sees
    a moment later: wait for that.

    Args:
        log: The JSON-lines file it writes. None: one that is gone afterwards.
    """

    def __init__(self, log: Path | None = None) -> None:
        self._keeps_log = log is not None
        self.log = log or Path(tempfile.gettempdir()) / f"glidemq-fake-{uuid.uuid4().hex}.jsonl"
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        # It ends when its standard input closes, however we end.
        self._process = subprocess.Popen(
            [sys.executable, "-m", "glidemq_llm.testing._server", str(self.log)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert self._process.stdout
        self.port = int(self._process.stdout.readline().split()[1])
        return self

    def __exit__(self, *error: object) -> None:
        assert self._process
        self._process.kill()
        self._process.communicate()
        if not self._keeps_log:
            self.log.unlink(missing_ok=True)

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def openai_url(self) -> str:
        """The base URL for OpenAI's client."""
        return self.base_url("openai")

    def base_url(self, vendor: str) -> str:
        """What a vendor's client is given as its address: `base_url`, `azure_endpoint`, `server_url`, `endpoint_url`, ...

        Args:
            vendor: "openai", "anthropic", "google", "vertex", "mistral", "cohere", "ollama", "bedrock"; or, for OpenAI's
                client, "azure", "groq", "deepseek", "xai", "openrouter", "perplexity", "together", "fireworks",
                "vllm", "llama.cpp".

        Raises:
            InvalidOption: Another vendor.
        """
        places = _PLACES | {name: place for name, (place, _) in DIALECTS.items()}
        if vendor not in places:
            raise InvalidOption("vendor", vendor, f"known are {', '.join(sorted(places))}")
        return f"{self.url}{places[vendor]}"

    def plan(self, model: str, *behaviours: Behaviour) -> None:
        """Say what the next calls of a model do, one after the other; "*" stands for all models."""
        self._control(
            "plan", model=model, behaviours=[behaviour.plain() for behaviour in behaviours]
        )

    def usually(self, behaviour: Behaviour, *, model: str = "*") -> None:
        """Say what the calls do for which nothing is planned."""
        self._control("usual", model=model, behaviour=behaviour.plain())

    def open(self, gate: str) -> None:
        """Let the calls go on that stand before a gate, now and later."""
        self._control("open", gate=gate)

    def limit(self, calls: int | None, *, seconds: float = 60) -> None:
        """Admit at most `calls` in any `seconds`, and answer 429 with `retry-after` to the others; None: no limit."""
        self._control("limit", calls=calls, seconds=seconds)

    def events(self, kind: str | None = None) -> list[dict[str, Any]]:
        """The log's lines so far, in order: "start", "first", "gate", "hang", "end"."""
        lines = self.log.read_bytes().split(b"\n")[:-1] if self.log.exists() else []
        found = [json.loads(line) for line in lines]
        return [event for event in found if kind is None or event["event"] == kind]

    def calls(self, *, tag: str | None = None, model: str | None = None) -> list[ProviderCall]:
        """All calls, or those of a tag or a model, in the order they came."""
        starts: dict[int, dict[str, Any]] = {}
        for event in self.events():
            number, at = event.pop("call"), event.pop("at")
            match event.pop("event"):
                case "start":
                    starts[number] = {
                        "number": number,
                        "started": at,
                        "is_stream": event.pop("stream"),
                        **event,
                    }
                case "first":
                    starts[number]["first"] = at
                case "end":
                    starts[number] |= {"ended": at, **event}
                case _:
                    pass
        found = [ProviderCall(**call) for call in starts.values()]
        return [call for call in found if tag in (None, call.tag) and model in (None, call.model)]

    def billed(self, *, tag: str | None = None, model: str | None = None) -> dict[str, int]:
        """The sums of billed tokens, disjoint: "input" (not cached), "cached_input", "output"; without those that are 0."""
        calls = self.calls(tag=tag, model=model)
        sums = {
            "input": sum(call.input - call.cached for call in calls),
            "cached_input": sum(call.cached for call in calls),
            "output": sum(call.output for call in calls),
        }
        return {category: tokens for category, tokens in sums.items() if tokens}

    def busiest(self, seconds: float, *, weigh: Callable[[ProviderCall], int] = lambda _: 1) -> int:
        """The most admitted calls (or tokens, by `weigh`) that began in any window of that length."""
        calls = sorted(
            (call.started, weigh(call)) for call in self.calls() if call.outcome != "limited"
        )
        most = held = end = 0
        for started, weight in calls:
            while end < len(calls) and calls[end][0] < started + seconds:
                held += calls[end][1]
                end += 1
            most = max(most, held)
            held -= weight
        return most

    def most_at_once(self) -> int:
        """The most calls that were open at one time."""
        calls = self.calls()
        steps = [(call.started, 1) for call in calls] + [
            (call.ended, -1) for call in calls if call.ended is not None
        ]
        open_calls, most = 0, 0
        for _, step in sorted(steps):
            open_calls += step
            most = max(most, open_calls)
        return most

    def wait(self, kind: str, *, count: int = 1, timeout: float = 10) -> list[dict[str, Any]]:
        """Block until the log has `count` events of a kind. In a coroutine: `await asyncio.to_thread(provider.wait, "gate")`.

        Raises:
            TimeoutError: It has fewer; the message says what it has.
        """
        deadline = time.monotonic() + timeout
        while len(found := self.events(kind)) < count:
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"{len(found)} of {count} {kind!r} within {timeout:g} s; log: {self.events()}"
                )
            time.sleep(_POLL)
        return found

    def _control(self, what: str, **body: object) -> None:
        with self._connection() as connection:
            connection.request("POST", f"/control/{what}", json.dumps(body))
            status = connection.getresponse().status
        if status != 200:
            raise RuntimeError(f"the provider answered {status} to {what}")

    @contextmanager
    def _connection(self) -> Generator[http.client.HTTPConnection]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            yield connection
        finally:
            connection.close()
