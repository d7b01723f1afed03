"""A cap that holds: fifty jobs at once against a budget for ten. The spend is stopped before it happens, not noted after.

    python cookbook/08_budget_cap.py

Each call sets its estimate aside before it is sent, in one step on the server, and settles what it really used. With a
client that `glidemq_llm.wrap` has returned, this happens by itself; here the call is made by hand.

It prints:

    completed: 10 of 50
    the others: failed (budget)
    asked the model 10 times
    spent 10000 of 10000 tokens, 0 still reserved
    with a higher cap: completed
"""

import asyncio
import logging
from collections import Counter

from glidemq_core import Budget, JobFailed, Ledger, NewJob, Queue, Worker

asked = 0


async def answer(job):
    global asked
    async with job.llm_call("some-model", tokens={"input": 200, "output": 800}) as call:
        asked += 1  # here your client asks the model
        await asyncio.sleep(0.05)
        call.tokens = {"input": 200, "output": 800}
    return "an answer"


async def ending(queue: Queue, id: str) -> str:
    try:
        await queue.result(id, timeout=30)
        return "completed"
    except JobFailed as error:
        return f"failed ({error.reason})"


async def main() -> None:
    logging.getLogger("glidemq_core").setLevel(logging.ERROR)  # forty failures are no news here
    async with (
        Ledger() as ledger,
        Queue("capped") as queue,
        Worker("capped", answer, concurrency=50),
    ):
        await ledger.open_budget("launch", Budget(max_total_tokens=10_000))

        new = [NewJob(name="answer", budgets=["launch"]) for _ in range(50)]
        jobs = await queue.add_many(new)
        endings = Counter(await asyncio.gather(*(ending(queue, job.id) for job in jobs)))
        print("completed:", endings.pop("completed"), "of", len(jobs))
        print("the others:", *endings)
        print("asked the model", asked, "times")

        cap = (await ledger.budget("launch")).caps["total_tokens"]
        print(f"spent {cap.used} of {cap.limit} tokens, {cap.reserved} still reserved")

        # A job that failed for want of money has used no attempt: raise the cap, and bring it back.
        await ledger.update_budget("launch", Budget(max_total_tokens=11_000))
        failed = (await queue.jobs("failed", limit=1))[0]
        await queue.retry(failed.id)
        print("with a higher cap:", await ending(queue, failed.id))


if __name__ == "__main__":
    asyncio.run(main())
