"""Retries: how often, how long between, which errors are not worth another try, and how to bring a failed job back.

    python cookbook/02_retries_and_backoff.py

It prints:

    flaky: attempt 1
    flaky: attempt 2
    flaky: attempt 3
    flaky -> third time lucky
    polite waited for its provider: True
    find -> failed (unrecoverable) after attempt 1: no such city: Lyon
    find, once more -> found Lyon
"""

import asyncio
import time

from glidemq_core import Backoff, JobFailed, Queue, UnrecoverableError, Worker

cities = {"Paris"}


async def flaky(job):
    print(f"flaky: attempt {job.attempt}")
    if job.attempt < 3:
        raise ConnectionError(
            "the line is busy"
        )  # any error: tried again while the job has attempts left
    return "third time lucky"


class Busy(Exception):
    retry_after = (
        0.4  # any error may say so: the least that is waited (seconds), whatever the backoff says
    )


async def polite(job):
    if job.attempt == 1:
        raise Busy
    return time.time()


async def find(job):
    if job.data not in cities:
        # Fails at once, whatever attempts are left. So does any error with `retryable = False`.
        raise UnrecoverableError(f"no such city: {job.data}")
    return f"found {job.data}"


async def main() -> None:
    handlers = {"flaky": flaky, "polite": polite, "find": find}
    async with Queue("retries") as queue, Worker("retries", handlers, concurrency=4):
        # 0.1 s after the first failure, 0.2 s after the second, and so on, of which up to a tenth is taken off.
        backoff = Backoff(delay=0.1, max_delay=10, jitter=0.1)
        job = await queue.add("flaky", attempts=5, backoff=backoff)
        print("flaky ->", await job.result(timeout=30))

        begun = time.time()
        job = await queue.add("polite", attempts=2, backoff=0.01)
        print("polite waited for its provider:", await job.result(timeout=30) - begun >= 0.4)

        job = await queue.add("find", "Lyon", attempts=5)
        try:
            await job.result(timeout=30)
        except JobFailed as error:
            print(
                f"find -> failed ({error.reason}) after attempt {error.attempt}: {error.error_message}"
            )

        # A failed job stays for a week. Mend what was wrong, and put it back into the line.
        cities.add("Lyon")
        await queue.retry(job.id)
        print("find, once more ->", await job.result(timeout=30))


if __name__ == "__main__":
    asyncio.run(main())
