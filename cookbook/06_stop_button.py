"""A stop button that stops: cancelling a job closes the provider's stream, so that no more tokens are made and paid for.

    python cookbook/06_stop_button.py

The provider here is a small server in this process that never stops talking by itself. It tells when its caller hangs up.

It prints:

    reader: 0 1 2 3 4
    cancel: requested
    provider: the caller hung up
    the stream ended as cancelled
    result: JobCancelled
    tokens were booked all the same: True
"""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress

from openai import AsyncOpenAI

from glidemq_core import JobCancelled, Queue, Worker
from glidemq_llm import wrap

hung_up = asyncio.Event()


async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A provider: answers any request with a stream of numbers, in the chat format, until its caller hangs up."""
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")
    number = 0
    with suppress(ConnectionError):
        while not writer.is_closing():
            choice = {"index": 0, "delta": {"content": f"{number} "}, "finish_reason": None}
            chunk = {
                "id": "c",
                "object": "chat.completion.chunk",
                "created": 1,
                "model": "m",
                "choices": [choice],
            }
            writer.write(f"data: {json.dumps(chunk)}\n\n".encode())
            await writer.drain()
            await asyncio.sleep(0.01)
            number += 1
    hung_up.set()


@asynccontextmanager
async def provider() -> AsyncGenerator[AsyncOpenAI]:
    async with await asyncio.start_server(talk, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with AsyncOpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none") as client:
            yield wrap(client)


async def main() -> None:
    async with provider() as client:

        async def chat(job):
            messages = [{"role": "user", "content": "Count."}]
            stream = await client.chat.completions.create(model="m", messages=messages, stream=True)
            async for _ in stream:
                pass  # the wrapped client writes the tokens into the job's stream

        async with Queue("stop") as queue, Worker("stop", chat):
            job = await queue.add("chat", attempts=3)
            words, end = [], ""
            async for chunk in job.stream():
                if chunk.type == "content":
                    words.append(chunk.content)
                if len(words) == 5 and not end:
                    print("reader:", "".join(words).strip())
                    end = await job.cancel()
                    print("cancel:", end)
                if chunk.type == "end":
                    await asyncio.wait_for(hung_up.wait(), 5)
                    print("provider: the caller hung up")
                    print("the stream ended as", chunk.content)
            try:
                await job.result(timeout=10)
            except JobCancelled as error:
                print("result:", type(error).__name__)
            snapshot = await job.snapshot()
            print("tokens were booked all the same:", snapshot.usage.total_tokens > 0)


if __name__ == "__main__":
    asyncio.run(main())
