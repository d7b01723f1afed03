"""A budget per customer, one for all of them, and jobs that wait for money instead of failing.

    python cookbook/09_tenant_budgets.py

A call must fit into all budgets that its job names, or it is not made. One that says `on_exceeded="pause"` parks its jobs:
they hold no slot and poll nothing, and go on by themselves when the cap is raised (or when its day or month ends).

It prints:

    acme: 3 completed, 2 wait for the budget
    ohm: 4 completed, 0 wait for the budget
    acme pays: 5 completed, 0 wait for the budget
    spent by acme: 0.05, by all: 0.09 usd
"""

import asyncio

from glidemq_core import Budget, Ledger, NewJob, Queue, Worker


async def answer(job):
    async with job.llm_call("some-model", tokens={"output": 100}, costs={"total": "0.01"}) as call:
        call.tokens, call.costs = {"output": 90}, {"total": "0.01"}
    return job.data


async def settled(queue: Queue) -> None:
    """Wait until every job has ended or is parked."""
    async for _ in queue.events(after=""):
        counts = await queue.counts()
        if not counts["waiting"] and not counts["active"]:
            return


async def report(queue: Queue, tenant: str) -> str:
    done = [job for job in await queue.jobs("completed") if job.data == tenant]
    parked = [job for job in await queue.jobs("delayed") if job.data == tenant]
    assert all(job.reason == "budget" for job in parked)
    return f"{len(done)} completed, {len(parked)} wait for the budget"


def monthly(cost: str) -> Budget:
    return Budget(
        max_total_cost=cost, window="month", time_zone="Europe/Berlin", on_exceeded="pause"
    )


async def main() -> None:
    async with (
        Ledger() as ledger,
        Queue("tenants") as queue,
        Worker("tenants", answer, concurrency=3),
    ):
        await ledger.open_budget("all", Budget(max_total_cost="10"))
        await ledger.open_budget("acme", monthly("0.03"))
        await ledger.open_budget("ohm", monthly("0.20"))

        tenants = ["acme"] * 5 + ["ohm"] * 4
        await queue.add_many(
            [NewJob(name="answer", data=tenant, budgets=[tenant, "all"]) for tenant in tenants]
        )
        await settled(queue)
        print("acme:", await report(queue, "acme"))
        print("ohm:", await report(queue, "ohm"))

        parked = [job.id for job in await queue.jobs("delayed")]
        await ledger.update_budget("acme", monthly("0.50"))
        await asyncio.gather(*(queue.result(id, timeout=30) for id in parked))
        print("acme pays:", await report(queue, "acme"))

        acme, everybody = await ledger.budget("acme"), await ledger.budget("all")
        print(
            f"spent by acme: {acme.used['cost.total']}, by all: {everybody.used['cost.total']} {acme.cost_unit}"
        )


if __name__ == "__main__":
    asyncio.run(main())
