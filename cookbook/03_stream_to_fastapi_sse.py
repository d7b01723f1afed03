"""A job's answer in the browser, live: FastAPI, server-sent events, and a reader that loses its connection.

    pip install fastapi uvicorn httpx
    python cookbook/03_stream_to_fastapi_sse.py

The events carry the chunks' ids, so a browser that reconnects (EventSource does it by itself) sends the last one it saw
as Last-Event-ID and misses nothing. In a page:

    const source = new EventSource(`/jobs/${id}/stream`);
    source.addEventListener("content", (event) => show(JSON.parse(event.data).content));
    source.addEventListener("end", () => source.close());

It prints:

    first connection: The tide is
    second connection: the pull of the moon.
    ended as completed
    a forged position: 400
"""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import httpx
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, StreamingResponse

from glidemq_core import InvalidOption, Queue, Worker, sse

WORDS = ["The", " tide", " is", " the", " pull", " of", " the", " moon", "."]
queue = Queue("sse")
app = FastAPI()


async def answer(job):
    for word in WORDS:  # a model's tokens, in your application
        await job.stream_chunk("content", word)
        await asyncio.sleep(0.02)


@app.post("/jobs")
async def add() -> dict[str, str]:
    return {"id": (await queue.add("answer")).id}


@app.get("/jobs/{id}/stream")
async def stream(id: str, request: Request) -> StreamingResponse:
    chunks = queue.stream(id, after=sse.last_event_id(request.headers))
    return StreamingResponse(sse.events(chunks), headers=dict(sse.HEADERS))


@app.exception_handler(InvalidOption)
async def refuse(request: Request, error: InvalidOption) -> JSONResponse:
    return JSONResponse({"error": str(error)}, status_code=400)


# -- what a browser does, played by httpx ------------------------------------------------------------------------------


async def read(
    client: httpx.AsyncClient, id: str, last: str = ""
) -> AsyncGenerator[dict[str, str]]:
    """The events of one connection."""
    headers = {"Last-Event-ID": last} if last else {}
    event: dict[str, str] = {}
    async with client.stream("GET", f"/jobs/{id}/stream", headers=headers) as response:
        async for line in response.aiter_lines():
            name, _, value = line.partition(": ")
            if name and value:
                event[name] = value
            elif event:
                yield event
                event = {}


async def browse(client: httpx.AsyncClient) -> None:
    id = (await client.post("/jobs")).json()["id"]
    last, words = "", []
    async for event in (connection := read(client, id)):
        last = event["id"]
        words.append(json.loads(event["data"])["content"])
        if len(words) == 3:
            break
    await connection.aclose()  # the train enters a tunnel
    print("first connection:", "".join(words))

    words = []
    async for event in read(client, id, last):
        data = json.loads(event["data"])
        if event["event"] == "end":
            print("second connection:", "".join(words).strip())
            print("ended as", data["content"])
            break
        words.append(data["content"])

    forged = await client.get(f"/jobs/{id}/stream", headers={"Last-Event-ID": "DROP TABLE"})
    print("a forged position:", forged.status_code)


@asynccontextmanager
async def served() -> AsyncGenerator[str]:
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    await task


async def main() -> None:
    async with (
        queue,
        Worker("sse", answer),
        served() as url,
        httpx.AsyncClient(base_url=url) as client,
    ):
        await browse(client)


if __name__ == "__main__":
    asyncio.run(main())
