"""A provider that costs next to nothing: OpenAI chat and Anthropic messages, each event a few bytes made beforehand.

The last message says what to answer: {"tokens": 100, "gap": 0.05}. With a gap each token carries the instant it was due
(`time.monotonic()`); without one they come as fast as they are read. Prints "ready PORT", ends when its input does.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import ClassVar

WORD = " token"
BURST = 16
HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nx-ratelimit-limit-requests: 100000\r\n"
    b"x-ratelimit-remaining-requests: 99000\r\ntransfer-encoding: chunked\r\n\r\n"
)
PROMPT_TOKENS = 12


def chunk(delta: dict[str, str], **more: object) -> dict[str, object]:
    return {
        "id": "chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT",
        "object": "chat.completion.chunk",
        "created": 1741569952,
        "model": "gpt-5-mini",
        "service_tier": "default",
        "system_fingerprint": "fp_44709d6fcb",
        "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}],
        "usage": None,
        **more,
    }


def data(body: object) -> bytes:
    return b"data: %b\n\n" % json.dumps(body, separators=(",", ":")).encode()


def event(body: dict[str, object]) -> bytes:
    return b"event: %b\n%b" % (str(body["type"]).encode(), data(body))


def openai_usage(tokens: int) -> dict[str, object]:
    return {
        "prompt_tokens": PROMPT_TOKENS,
        "completion_tokens": tokens,
        "total_tokens": PROMPT_TOKENS + tokens,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
    }


class OpenAI:
    token = data(chunk({"content": WORD}))
    start = data(chunk({"role": "assistant", "content": ""}))

    @staticmethod
    def finish(tokens: int) -> bytes:
        end = {"index": 0, "delta": {}, "logprobs": None, "finish_reason": "stop"}
        usage = chunk({}, choices=[], usage=openai_usage(tokens))
        return data(chunk({}, choices=[end])) + data(usage) + b"data: [DONE]\n\n"

    @staticmethod
    def whole(tokens: int) -> dict[str, object]:
        message = {"role": "assistant", "content": WORD * tokens, "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
        body = chunk({}, choices=[choice], usage=openai_usage(tokens))
        return {**body, "object": "chat.completion"}


class Anthropic:
    token = event(
        {
            "type": "content_block_delta",
            "index": 0,
            "delta": {"type": "text_delta", "text": WORD},
        }
    )
    message: ClassVar[dict[str, object]] = {
        "id": "msg_01XFDUDYJgAACzvnptvVoYEL",
        "type": "message",
        "role": "assistant",
        "model": "claude-sonnet-5-5",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": PROMPT_TOKENS, "output_tokens": 1},
    }
    start = (
        event({"type": "message_start", "message": message})
        + event(
            {
                "type": "content_block_start",
                "index": 0,
                "content_block": {"type": "text", "text": ""},
            }
        )
        + event({"type": "ping"})
    )

    @staticmethod
    def finish(tokens: int) -> bytes:
        delta = {"stop_reason": "end_turn", "stop_sequence": None}
        return (
            event({"type": "content_block_stop", "index": 0})
            + event({"type": "message_delta", "delta": delta, "usage": {"output_tokens": tokens}})
            + event({"type": "message_stop"})
        )

    @staticmethod
    def whole(tokens: int) -> dict[str, object]:
        usage = {"input_tokens": PROMPT_TOKENS, "output_tokens": tokens}
        content = [{"type": "text", "text": WORD * tokens}]
        return {**Anthropic.message, "content": content, "stop_reason": "end_turn", "usage": usage}


def framed(body: bytes) -> bytes:
    """A piece of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(body), body)


async def stream(
    writer: asyncio.StreamWriter, vendor: type[OpenAI | Anthropic], tokens: int, gap: float
) -> None:
    writer.write(HEAD + framed(vendor.start))
    if gap:
        due = time.monotonic() + gap
        for _ in range(tokens):
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            writer.write(framed(vendor.token.replace(WORD.encode(), b"%.6f" % due)))
            due += gap
    else:
        token = framed(vendor.token)
        for number in range(tokens):
            writer.write(token)
            if number % BURST == 0:
                await writer.drain()
    writer.write(framed(vendor.finish(tokens)) + framed(b""))
    await writer.drain()


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = head.split(b"content-length:", 1)[1].split(b"\r\n", 1)[0]
            body = json.loads(await reader.readexactly(int(length)))
            vendor = Anthropic if b"/messages" in head.split(b"\r\n", 1)[0] else OpenAI
            wanted = json.loads(body["messages"][-1]["content"])
            if body.get("stream"):
                await stream(writer, vendor, wanted["tokens"], wanted.get("gap", 0.0))
                continue
            whole = json.dumps(vendor.whole(wanted["tokens"])).encode()
            writer.write(
                b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
                % (len(whole), whole)
            )
    except (OSError, asyncio.IncompleteReadError):
        writer.close()


async def main() -> None:
    server = await asyncio.start_server(serve, "127.0.0.1", 0, backlog=1000)
    print("ready", server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main())
