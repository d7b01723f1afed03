"""A throttle under full pressure: eight processes ask for a limiter as fast as they are let.

    python bench/throttle.py [--processes 8] [--seconds 90] [--tpm 60000] [--parked 10000]

Prints the fullest minute of all, wherever it begins, beside limit + burst, how much of the limit was used, and what it
cost the server; then the calls that parked jobs cost while they wait for a budget.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import subprocess
import sys
import time

from harness import Server, server

from glidemq_core import Budget, Ledger, NewJob, Queue, Throttle, Throttled, Worker

MINUTE = 60.0
BURST = 0.1
CALLERS = 20
PARKED_FOR = 10.0


async def press(url: str, name: str, seconds: float, tpm: int) -> None:
    """One process: callers that ask again at once; prints [[instant, tokens], ...] and how often it was refused."""
    dice = random.Random(name)
    admitted: list[tuple[float, int]] = []
    refused = 0
    end = time.time() + seconds

    async def caller(n: int) -> None:
        nonlocal refused
        count = 0
        while time.time() < end:
            count += 1
            call, tokens = f"{name}-{n}/1/{count}", {"input": dice.randint(20, 500)}
            while time.time() < end:
                try:
                    reservation = await ledger.reserve(call, tokens=tokens, limits=["provider"])
                except Throttled as error:
                    refused += 1
                    await asyncio.sleep(min(error.retry_after, max(0.0, end - time.time())))
                    continue
                admitted.append((time.time(), tokens["input"]))
                await reservation.settle(tokens=tokens)
                break

    async with Ledger(connection=url) as ledger:
        ledger.limiter("provider", Throttle(tpm=tpm, burst=BURST))
        await asyncio.gather(*(caller(n) for n in range(CALLERS)))
    print(json.dumps({"admitted": admitted, "refused": refused}))


def fullest(admitted: list[tuple[float, int]]) -> int:
    """The most tokens in any window of a minute."""
    best = held = first = 0
    for at, tokens in admitted:
        held += tokens
        while admitted[first][0] <= at - MINUTE:
            held -= admitted[first][1]
            first += 1
        best = max(best, held)
    return best


def pressure(valkey: Server, options: argparse.Namespace) -> None:
    before = valkey.counters()
    words = [sys.executable, __file__, "--press", valkey.url]
    words += ["--seconds", str(options.seconds), "--tpm", str(options.tpm)]
    begin = time.time()
    running = [
        subprocess.Popen([*words, "--name", f"p{n}"], stdout=subprocess.PIPE, text=True)
        for n in range(options.processes)
    ]
    found = [json.loads(process.communicate()[0]) for process in running]
    spent = time.time() - begin
    after = valkey.counters()
    admitted = sorted((at, tokens) for part in found for at, tokens in part["admitted"])
    total = sum(tokens for _, tokens in admitted)
    most, allowed = fullest(admitted), int(options.tpm * (1 + BURST))
    could = options.tpm * options.seconds / MINUTE
    print(
        f"{options.processes} processes with {CALLERS} callers each, {options.tpm:,} tokens a minute"
    )
    print(f"  fullest minute               {most:>12,} (limit + burst: {allowed:,})")
    print(f"  limit used                   {total / could:>12.1%}")
    print(f"  calls admitted               {len(admitted):>12,}")
    print(f"  refusals                     {sum(part['refused'] for part in found):>12,}")
    print(f"  server CPU                   {(after.cpu - before.cpu) / spent:>12.2%}", flush=True)
    if options.seconds >= MINUTE and most > allowed:
        raise SystemExit("a minute held more than limit + burst")


async def parked(valkey: Server, count: int) -> None:
    async with Ledger(connection=valkey.url) as ledger:
        await ledger.open_budget("tenant", Budget(max_total_tokens=0, on_exceeded="pause"))

        async def handler(job) -> None:
            async with job.llm_call("m", tokens={"input": 1}) as call:
                call.tokens = {"input": 1}

        async with (
            Queue("parked", connection=valkey.url) as queue,
            Worker("parked", handler, connection=valkey.url, concurrency=200),
        ):
            jobs = [NewJob(name="j", budgets=["tenant"]) for _ in range(count)]
            await queue.add_many(jobs)
            while (await queue.counts())["delayed"] < count:  # noqa: ASYNC110 there is nothing to wait on
                await asyncio.sleep(0.2)
            before, at = valkey.counters(), time.monotonic()
            await asyncio.sleep(PARKED_FOR)
            after, spent = valkey.counters(), time.monotonic() - at
            print(f"{count:,} jobs parked for a budget")
            print(f"  server calls a second        {(after.calls - before.calls) / spent:>12.1f}")
            at = time.monotonic()
            await ledger.update_budget("tenant", Budget(max_total_tokens=10 * count))
            while (await queue.counts())["completed"] < count:  # noqa: ASYNC110 as above
                await asyncio.sleep(0.1)
            print(
                f"  seconds from raised cap to all done {time.monotonic() - at:>5.1f}", flush=True
            )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=90)
    parser.add_argument("--tpm", type=int, default=60_000)
    parser.add_argument("--parked", type=int, default=10_000)
    parser.add_argument("--press", help=argparse.SUPPRESS)
    parser.add_argument("--name", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.press:
        asyncio.run(press(options.press, options.name, options.seconds, options.tpm))
        return
    with server() as valkey:
        pressure(valkey, options)
        asyncio.run(parked(valkey, options.parked))


if __name__ == "__main__":
    main()
