"""What wrapping a client costs: the bare client and the wrapped one in turn, in the handler of one worker.

    python bench/middleware.py [calls|chunks|pace ...] [--apis openai,anthropic] [--rounds 9] [--streams 200] [--seconds 5]

calls    one call after the other, whole and as a stream of 20 tokens; the figure of a round is its median
chunks   processor time of this process per chunk of long streams that come as fast as they are read
pace     many streams of 20 tokens a second at once: how long after it was due each token is in the reader's hands. A stream
         whose median lag in the last second is more than a token's 50 ms has fallen behind.

All features are on: three budgets, a limiter with requests, tokens, concurrency and breaker, the job's stream, usage,
prices. Provider and server are processes of their own.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

from harness import HERE, percentile, server

from glidemq_core import Budget, Ledger, Queue, Worker
from glidemq_core.throttle import Breaker, Throttle
from glidemq_llm import Pricing, wrap

BUDGETS = ["flow", "tenant", "user"]
LIMIT = Throttle(rpm=10**8, tpm=10**10, concurrency=10**6, breaker=Breaker())
PRICES = {"*": {"input": "0.25", "output": 2}}
SHORT, LONG = 20, 2000
GAP = 0.05


class OpenAI:
    """openai, chat completions."""

    def __init__(self, port: int) -> None:
        import openai

        self.client: Any = openai.AsyncOpenAI(
            base_url=f"http://127.0.0.1:{port}/v1", api_key="k", max_retries=0
        )

    async def ask(self, client: Any, say: dict[str, float], *, stream: bool) -> Any:
        return await client.chat.completions.create(
            model="gpt-5-mini",
            messages=[{"role": "user", "content": json.dumps(say)}],
            max_tokens=LONG,
            stream=stream,
            **({"stream_options": {"include_usage": True}} if stream else {}),
        )

    @staticmethod
    def text(event: Any) -> str:
        return event.choices[0].delta.content or "" if event.choices else ""


class Anthropic:
    """anthropic, messages."""

    def __init__(self, port: int) -> None:
        import anthropic

        self.client: Any = anthropic.AsyncAnthropic(
            base_url=f"http://127.0.0.1:{port}", api_key="k", max_retries=0
        )

    async def ask(self, client: Any, say: dict[str, float], *, stream: bool) -> Any:
        return await client.messages.create(
            model="claude-sonnet-5-5",
            messages=[{"role": "user", "content": json.dumps(say)}],
            max_tokens=LONG,
            stream=stream,
        )

    @staticmethod
    def text(event: Any) -> str:
        return event.delta.text if event.type == "content_block_delta" else ""


APIS = {"openai": OpenAI, "anthropic": Anthropic}
Api = OpenAI | Anthropic


async def tokens(api: Api, client: Any, say: dict[str, float]) -> AsyncIterator[str]:
    """The texts of a stream."""
    async for event in await api.ask(client, say, stream=True):
        if text := api.text(event):
            yield text


async def whole(api: Api, client: Any) -> None:
    await api.ask(client, {"tokens": SHORT}, stream=False)


async def streamed(api: Api, client: Any) -> None:
    assert len([text async for text in tokens(api, client, {"tokens": SHORT})]) == SHORT


async def timed(call: Callable[[Api, Any], Awaitable[None]], api: Api, client: Any) -> list[float]:
    """Milliseconds of each of some calls, one after the other."""
    spent: list[float] = []
    for _ in range(30):
        at = time.perf_counter()
        await call(api, client)
        spent.append((time.perf_counter() - at) * 1e3)
    return spent


async def calls(api: Api, clients: dict[str, Any], options: argparse.Namespace) -> None:
    for name, call in (("whole", whole), ("stream of 20", streamed)):
        found: dict[str, list[list[float]]] = {kind: [] for kind in clients}
        for _ in range(options.rounds):
            for kind, client in clients.items():
                found[kind].append(await timed(call, api, client))
        for share in (50, 99):
            each = {
                kind: [percentile(spent, share / 100) for spent in rounds]
                for kind, rounds in found.items()
            }
            row(f"{name}, p{share}", "ms", each)


async def chunks(api: Api, clients: dict[str, Any], options: argparse.Namespace) -> None:
    found: dict[str, list[float]] = {kind: [] for kind in clients}
    for _ in range(options.rounds):
        for kind, client in clients.items():
            at = time.process_time()
            count = len([text async for text in tokens(api, client, {"tokens": LONG})])
            await asyncio.sleep(0.05)  # what has not been written yet
            assert count == LONG
            found[kind].append((time.process_time() - at) / count * 1e6)
    row("CPU per chunk", "us", found)


async def pace(api: Api, clients: dict[str, Any], options: argparse.Namespace) -> None:
    say = {"tokens": round(options.seconds / GAP), "gap": GAP}

    async def follow(client: Any) -> list[float]:
        return [(time.monotonic() - float(text)) * 1e3 async for text in tokens(api, client, say)]

    lags: dict[str, list[list[float]]] = {kind: [] for kind in clients}
    used: dict[str, list[float]] = {kind: [] for kind in clients}
    for _ in range(max(1, options.rounds // 3)):
        for kind, client in clients.items():
            at, began = time.process_time(), time.perf_counter()
            async with asyncio.TaskGroup() as group:
                running = [group.create_task(follow(client)) for _ in range(options.streams)]
            spent = time.process_time() - at
            used[kind].append(spent / (time.perf_counter() - began) * 1e2)
            lags[kind] += [task.result() for task in running]
    every = {kind: [lag for stream in streams for lag in stream] for kind, streams in lags.items()}
    for share in (50, 99, 100):
        row(
            f"lag, p{share}" if share < 100 else "lag, most",
            "ms",
            {kind: [percentile(lag, share / 100)] for kind, lag in every.items()},
        )
    last = round(1 / GAP)
    behind = {
        kind: [float(sum(statistics.median(stream[-last:]) > GAP * 1e3 for stream in streams))]
        for kind, streams in lags.items()
    }
    row("streams behind at the end", "", behind)
    row("CPU, its calls included", "% of a core", used)


def row(name: str, unit: str, found: dict[str, list[Any]]) -> None:
    """Medians of bare and wrapped, and the median of the differences round by round."""
    more = statistics.median(b - a for a, b in zip(*found.values(), strict=True))
    cells = [statistics.median(rounds) for rounds in found.values()] + [more]
    print(f"  {f'{name} {unit}':34}" + "".join(f"{cell:>12,.2f}" for cell in cells), flush=True)


MEASUREMENTS = {"calls": calls, "chunks": chunks, "pace": pace}


async def measure(url: str, port: int, options: argparse.Namespace) -> None:
    async def handler(job: Any) -> None:
        for name in options.apis.split(","):
            api = APIS[name](port)
            clients = {
                "bare": api.client,
                "wrapped": wrap(api.client, pricing=Pricing(PRICES)),
            }
            for client in clients.values():  # what comes once is not measured
                await timed(whole, api, client)
                await timed(streamed, api, client)
            for what in options.what:
                heads = "".join(f"{head:>12}" for head in (*clients, "more"))
                print(f"\n{f'{name}, {what}':36}{heads}")
                await MEASUREMENTS[what](api, clients, options)
            await api.client.close()

    async with Ledger(connection=url) as ledger, Queue("bench", connection=url) as queue:
        for id in BUDGETS:
            await ledger.open_budget(id, Budget(max_total_tokens=10**11, max_total_cost=1_000_000))
        async with Worker("bench", handler, connection=url):
            job = await queue.add("measure", budgets=BUDGETS, limits={"provider": LIMIT})
            await job.result()


@contextmanager
def provider() -> Iterator[int]:
    """The provider's process; its port."""
    with subprocess.Popen(
        [sys.executable, str(HERE / "provider.py")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout
        assert process.stdin
        yield int(process.stdout.readline().split()[1])
        process.stdin.close()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", nargs="*", default=list(MEASUREMENTS))
    parser.add_argument("--apis", default=",".join(APIS))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--streams", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=5)
    options = parser.parse_args()
    with server() as valkey, provider() as port:
        asyncio.run(measure(valkey.url, port, options))


if __name__ == "__main__":
    main()
