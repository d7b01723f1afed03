"""Mock providers that others have written, as processes on loopback: llmock (Python), aimock and mock-llm (Node).

All are told, per model, how the next calls go, and say what they were asked.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import psutil

from tests.harness.processes import ROOT, unwatch, wait_until, watch
from tests.harness.servers import free_port

TEXT = "one two three four five six seven eight"
STALL = 30.0  # seconds; whoever waits for it has missed the silence

_ENVIRONMENTS = (Path(sys.prefix), ROOT / ".venv-vendors")


class MockServer:
    """A server for the length of a `with`.

    The steps of a plan: "answer", an HTTP status ("429" asks to wait for a second), "overload" (an error as the body of
    status 200), "slow" (silent before the first byte), "stall" (in mid-stream), "cut" (the connection, in mid-stream),
    "truncate" (a proper end, too early), "malformed".
    """

    name = ""
    port = 0

    def __init__(self) -> None:
        self.log = Path(tempfile.gettempdir()) / f"mock-{uuid.uuid4().hex}.log"  # what it prints

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def openai_url(self) -> str:
        """The base URL for OpenAI's client."""
        return f"{self.url}/v1"

    @classmethod
    def command(cls) -> list[str] | None:
        """What starts it, with {port} for the port, if it is not told by $PORT; None where it is not installed."""
        raise NotImplementedError

    def plan(
        self, model: str, *steps: str, usage: Mapping[str, int] | None = None, tools: bool = False
    ) -> None:
        """Say how the next calls of a model go, and what those after them say: TEXT, as words or as the argument of a tool call.

        Args:
            usage: What is stated, in the vendor's words, where the server can be told.
        """
        raise NotImplementedError

    def calls(self, model: str) -> int:
        """How many calls of a model have arrived."""
        raise NotImplementedError

    def faults(self, model: str) -> list[str]:
        """What the server itself holds against its client."""
        return []

    def ask(self, method: str, path: str, body: object = None) -> Any:
        """Ask its control interface."""
        request = urllib.request.Request(
            self.url + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"content-type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.loads(answer.read() or b"null")

    def __enter__(self) -> Self:
        command = self.command()
        assert command is not None
        for _ in range(5):
            self.port = free_port()
            address = {"HOST": "127.0.0.1", "PORT": str(self.port)}
            with self.log.open("ab") as log:
                self._process = subprocess.Popen(
                    [part.format(port=self.port) for part in command],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.DEVNULL,
                    env={**os.environ, "PYTHONPATH": "", **address},
                    start_new_session=True,
                )
            watch(self._process.pid)
            wait_until(lambda: self._has_ended or self._listens, 30, f"{self.name} listens")
            if not self._has_ended:
                return self
            unwatch(self._process.pid)  # somebody else took the port in between
        raise AssertionError(f"{self.name} does not start")

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        unwatch(self._process.pid)
        self.log.unlink()

    @property
    def _has_ended(self) -> bool:
        return self._process.poll() is not None

    @property
    def _listens(self) -> bool:
        # Not just any answer: somebody else's server on this port answers just as well.
        try:
            sockets = psutil.Process(self._process.pid).net_connections("tcp")
        except psutil.Error:
            return False
        return any(one.status == "LISTEN" and one.laddr.port == self.port for one in sockets)


class LLMock(MockServer):
    """PyPI `llmock`: faults at any event of a stream, and a verdict on the client."""

    name = "llmock"

    @classmethod
    def command(cls) -> list[str] | None:
        found = (path / "bin" / "llmock" for path in _ENVIRONMENTS)
        program = next((path for path in found if path.exists()), None)
        return (
            None
            if program is None
            else [str(program), "serve", "--log-level", "error", "-p", "{port}"]
        )

    def plan(
        self, model: str, *steps: str, usage: Mapping[str, int] | None = None, tools: bool = False
    ) -> None:
        behaviours = [_llmock_step(step) for step in steps if step != "answer"]
        behaviours.append({"type": "reply", "text": TEXT, "times": None})
        for behaviour in behaviours:
            behaviour["match"] = {"model": model}
        self.ask("POST", "/_llmock/scenario", {"behaviors": behaviours})

    def calls(self, model: str) -> int:
        return len(self._requests(model))

    def _requests(self, model: str) -> set[int]:
        found = self.ask("GET", "/_llmock/requests")["requests"]
        return {one["seq"] for one in found if one["model"] == model}

    def faults(self, model: str) -> list[str]:
        own = self._requests(model)
        findings = self.ask("GET", "/_llmock/verdict")["findings"]
        return [
            one["code"]
            for one in findings
            if one["severity"] == "error" and own.issuperset(one["requests"])
        ]


def _llmock_step(step: str) -> dict[str, Any]:
    if step.isdigit():
        wait = {"retry_after": 1} if step == "429" else {}
        return {"type": "fail", "status": int(step), **wait}
    if step == "slow":
        return {"type": "slow_first_token", "seconds": STALL}
    kind = "disconnect" if step == "cut" else step
    stall = {"stall_seconds": STALL} if step == "stall" else {}
    return {"type": "stream_fault", "kind": kind, "after_chunks": 6, **stall}


class AIMock(MockServer):
    """npm `@copilotkit/aimock`: every vendor's own wire format, Bedrock's and Ollama's among them."""

    name = "aimock"

    @classmethod
    def command(cls) -> list[str] | None:
        started = _node("@copilotkit/aimock/dist/cli.js")
        return started and [
            *started,
            "--log-level",
            "silent",
            "-f",
            str(_NO_FIXTURES),
            "-p",
            "{port}",
        ]

    def plan(
        self, model: str, *steps: str, usage: Mapping[str, int] | None = None, tools: bool = False
    ) -> None:
        call = {"name": "say", "arguments": json.dumps({"text": TEXT})}
        answer: dict[str, Any] = {"toolCalls": [call]} if tools else {"content": TEXT}
        answer |= {"usage": usage} if usage else {}
        fixtures = [
            {"match": {"model": model, "sequenceIndex": at}, **_aimock_step(step, answer)}
            for at, step in enumerate(steps)
        ]
        fixtures.append({"match": {"model": model}, **_aimock_step("answer", answer)})
        self.ask("POST", "/__aimock/fixtures", {"fixtures": fixtures})

    def calls(self, model: str) -> int:
        return sum(
            model in one["path"] or (one["body"] or {}).get("model") == model
            for one in self.ask("GET", "/__aimock/journal")
        )


def _aimock_step(step: str, answer: dict[str, Any]) -> dict[str, Any]:
    if step.isdigit() or step == "overload":
        type, code = _AIMOCK_ERRORS.get(step, ("api_error", "server_error"))
        error = {"message": "the mock was told to fail", "type": type, "code": code}
        wait = {"retryAfter": 1} if step == "429" else {}
        status = 200 if step == "overload" else int(step)
        return {"response": {"error": error, "status": status, **wait}}
    return {"response": answer, "chunkSize": 4, **_AIMOCK_FAULTS.get(step, {})}


_AIMOCK_ERRORS = {
    "400": ("invalid_request_error", "invalid_value"),
    "401": ("authentication_error", "invalid_api_key"),
    "429": ("rate_limit_error", "rate_limit_exceeded"),
    "529": ("overloaded_error", "overloaded"),
    "overload": ("overloaded_error", "overloaded"),
}
_AIMOCK_FAULTS = {
    "slow": {
        "recordedTimings": {
            "ttftMs": STALL * 1000,
            "interChunkDelaysMs": [],
            "totalDurationMs": STALL * 1000,
        }
    },
    "stall": {
        "recordedTimings": {
            "ttftMs": 0,
            "interChunkDelaysMs": [0, 0, 0, 0, 0, STALL * 1000],
            "totalDurationMs": STALL * 1000,
        }
    },
    "cut": {
        "truncateAfterChunks": 6,
        "latency": 20,
    },  # what is sent faster is lost with the connection
    "malformed": {"chaos": {"malformedRate": 1}},
}
_NO_FIXTURES = Path(__file__).with_name("aimock.json")


class MockLLM(MockServer):
    """npm `@dwmkerr/mock-llm`: what it is told is an error it sends as the event of a stream, under status 200.

    It streams answers in the format of OpenAI's chats alone, and sends any error at any path. One model at a time.
    """

    name = "mock-llm"

    @classmethod
    def command(cls) -> list[str] | None:
        return _node("@dwmkerr/mock-llm/dist/main.js")

    def plan(
        self, model: str, *steps: str, usage: Mapping[str, int] | None = None, tools: bool = False
    ) -> None:
        choice = {"index": 0, "message": {"role": "assistant", "content": TEXT}}
        answer = {"id": "x", "object": "chat.completion", "created": 1, "model": model}
        answer |= {"choices": [{**choice, "finish_reason": "stop"}], "usage": usage}
        rules = [{"path": ".", "response": {"status": 200, "content": json.dumps(answer)}}]
        rules += [
            {"path": ".", "sequence": at, "response": {"status": 200, "content": _OVERLOADED}}
            for at, step in enumerate(steps)
            if step == "overload"
        ]
        for rule in rules:
            rule["match"] = f"body.model=='{model}' || contains(path, '{model}')"
        self.ask("DELETE", "/config")  # or it would go on counting
        self.ask(
            "POST", "/config", {"streaming": {"chunkSize": 4, "chunkIntervalMs": 1}, "rules": rules}
        )
        self._before = self._posts()

    def calls(self, model: str) -> int:
        return self._posts() - self._before

    def _posts(self) -> int:
        return sum(line.startswith("POST ") for line in self.log.read_text().splitlines())


# As OpenAI and Google say it: each reads its own words. Google's SDK wants the error first.
_OVERLOADED = json.dumps(
    {
        "error": {
            "message": "Overloaded",
            "type": "overloaded_error",
            "code": 503,
            "status": "UNAVAILABLE",
        },
        "type": "error",
    }
)


def _node(script: str) -> list[str] | None:
    """What runs a script of an npm package; None where Node or the package is missing."""
    node = shutil.which("node")
    found = (path / "node_modules" / script for path in _ENVIRONMENTS)
    program = next((path for path in found if path.exists()), None)
    return None if node is None or program is None else [node, str(program)]
