"""A job's answer in the browser, live: FastAPI, server-sent events, and a reader that loses its connection.

    pip install fastapi uvicorn httpx
    python cookbook/03_stream_to_fastapi_sse.py          # plays a browser that loses its connection
    python cookbook/03_stream_to_fastapi_sse.py --serve  # a page to look at

The events carry the chunks' ids, so a browser that reconnects (EventSource does it by itself) sends the last one it saw
as Last-Event-ID and misses nothing. After a `reset`, when an attempt or a model has failed half-way, the page takes back
what no longer stands. Stopping cancels the job; its readers are told by the stream's end. In production the worker is a process of
its own (`docs/operating.md`), and the application opens its queue in FastAPI's `lifespan`.

It prints:

    first connection: The tide is
    second connection: the pull of the moon.
    ended as completed
    a forged position: 400
    stopped: 200, of an unknown job: 404
"""

import asyncio
import json
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress

import httpx
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, StreamingResponse

from glidemq_core import InvalidOption, JobNotFound, Queue, Worker, sse

WORDS = ["The", " tide", " is", " the", " pull", " of", " the", " moon", "."]
queue = Queue("sse")
app = FastAPI()
PAGE = """<!doctype html>
<meta charset="utf-8">
<title>An answer, live</title>
<button id="ask">Ask</button> <button id="stop">Stop</button> <output id="state"></output>
<p id="answer" style="white-space: pre-wrap"></p>
<script>
const at = id => document.getElementById(id);
const later = (a, b) => { // ids are TIME-NUMBER
  const [at, n] = a.split("-").map(Number), [upto, m] = b.split("-").map(Number);
  return at > upto || at === upto && n > m;
};
function follow(job) {
  const source = new EventSource(`/jobs/${job}/stream`);
  let kept = []; // what stands
  const on = (type, act) => source.addEventListener(type, event => {
    act({id: event.lastEventId, ...JSON.parse(event.data)});
    at("answer").textContent = kept.map(chunk => chunk.content).join("");
  });
  on("start", chunk => kept.push(chunk));
  on("content", chunk => kept.push(chunk));
  on("reset", ({fields}) => {
    const begin = kept.findLastIndex(chunk => chunk.type === "start" && chunk.call === fields.call);
    if (fields.keep_upto) kept = kept.filter(chunk => !later(chunk.id, fields.keep_upto));
    else if (begin >= 0) kept = kept.filter((chunk, i) => i < begin || chunk.call !== fields.call);
  });
  on("end", chunk => { at("state").textContent = chunk.content; source.close(); });
  source.onerror = () => at("state").textContent = "reconnecting";
  source.onopen = () => at("state").textContent = "reading";
}
let job;
at("ask").onclick = async () => follow(job = (await (await fetch("/jobs", {method: "POST"})).json()).id);
at("stop").onclick = () => job && fetch(`/jobs/${job}/stop`, {method: "POST"});
</script>
"""


async def answer(job):
    for word in WORDS:  # a model's tokens, in your application
        await job.stream_chunk("content", word)
        await asyncio.sleep(0.02)


@app.get("/")
async def page() -> HTMLResponse:
    return HTMLResponse(PAGE)


@app.post("/jobs")
async def add() -> dict[str, str]:
    return {"id": (await queue.add("answer")).id}


@app.get("/jobs/{id}/stream")
async def stream(id: str, request: Request) -> StreamingResponse:
    chunks = queue.stream(id, after=sse.last_event_id(request.headers))
    return StreamingResponse(sse.events(chunks), headers=dict(sse.HEADERS))


@app.post("/jobs/{id}/stop")
async def stop(id: str) -> dict[str, str]:
    return {"stop": await queue.cancel(id)}


@app.exception_handler(JobNotFound)
async def unknown(request: Request, error: JobNotFound) -> JSONResponse:
    return JSONResponse({"error": str(error)}, status_code=404)


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

    id = (await client.post("/jobs")).json()["id"]
    stopped, lost = [await client.post(f"/jobs/{one}/stop") for one in (id, "nobody")]
    print(f"stopped: {stopped.status_code}, of an unknown job: {lost.status_code}")


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
        if "--serve" in sys.argv:
            print(f"open {url} (Ctrl-C ends it)")
            await asyncio.Event().wait()
        await browse(client)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(main())
