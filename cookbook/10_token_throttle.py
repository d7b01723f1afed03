"""A provider's limits, kept by all workers together: requests and tokens a minute, and calls at one time.

    python cookbook/10_token_throttle.py

A limiter has a name; every call that names it passes it, from any queue, process or machine. A call that has to wait a
little waits in its worker; one that has to wait longer parks its job, which then holds no slot and uses no attempt.

It prints:

    never more than 2 at one time: True
    8000 tokens, 4000 at once and 2000 a second, took 2 seconds or more: True
    nothing was refused by the provider, no attempt was used: True
"""

import asyncio
import time

from glidemq_core import NewJob, Queue, Throttle, Worker

# 120,000 tokens a minute are two thousand a second; 4,000 may come at once (burst).
LIMITS = {"acme-ai/model": Throttle(tpm=120_000, burst=4_000 / 120_000, concurrency=2)}

running = 0
most = 0
started: list[float] = []


async def answer(job):
    global running, most
    async with job.llm_call("model", tokens={"input": 900, "output": 100}) as call:
        running += 1
        most = max(most, running)
        started.append(time.monotonic())
        await asyncio.sleep(0.02)
        running -= 1
        call.tokens = {"input": 900, "output": 100}


async def main() -> None:
    async with Queue("throttled") as queue, Worker("throttled", answer, concurrency=8):
        begun = time.monotonic()
        jobs = await queue.add_many([NewJob(name="answer", limits=LIMITS) for _ in range(8)])
        await asyncio.gather(*(job.result(timeout=45) for job in jobs))
        done = await queue.jobs("completed")

    print("never more than 2 at one time:", most <= 2)
    took = max(started) - begun
    print("8000 tokens, 4000 at once and 2000 a second, took 2 seconds or more:", took > 1.9)
    print(
        "nothing was refused by the provider, no attempt was used:",
        all(job.attempt == 1 for job in done),
    )


if __name__ == "__main__":
    asyncio.run(main())
