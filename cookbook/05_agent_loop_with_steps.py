"""An agent: a loop of model calls and tools that survives crashes and pauses without paying for anything twice.

    python cookbook/05_agent_loop_with_steps.py

The model here is a function of a few lines; use your own client in its place. Three things interrupt the agent: a crash
after the first model call, a nap, and its tools, which are jobs of their own. Each time its handler starts again from the
top, and finds the results of what it did before.

It prints:

    model call 1: look up the moon
    (the agent crashes)
    tool: looking up the moon
    model call 2: look up the sun
    tool: looking up the sun
    model call 3: answer
    answer: 2 facts, the last is 'the sun is hot'
    model calls in all: 3
"""

import asyncio

from glidemq_core import Queue, Worker

calls = 0


async def model(facts: list[str]) -> dict[str, str]:
    """What to do next, knowing these facts. Stands for a call that costs money."""
    global calls
    calls += 1
    decision = [{"look_up": "the moon"}, {"look_up": "the sun"}, {"answer": ""}][len(facts)]
    print(
        f"model call {calls}:",
        f"look up {decision['look_up']}" if "look_up" in decision else "answer",
    )
    return decision


async def agent(job):
    facts: list[str] = []
    while True:
        # `paid`: its beginning is noted as well, so that a crash in the middle of the call is known.
        decision = await job.step("decide", model, facts, paid=True)
        if "answer" in decision:
            return {"facts": len(facts), "last": facts[-1]}
        if job.attempt == 1:
            print("(the agent crashes)")
            raise ConnectionResetError

        await job.sleep(0.1)  # the slot is free meanwhile: the job is parked, not the worker
        key = f"fact-{len(facts)}"
        await job.add_child("look_up", decision["look_up"], key=key)
        ends = await job.wait_for_children()
        facts.append(ends[key].result)


async def look_up(job):
    print("tool: looking up", job.data)
    return f"{job.data} is {'hot' if job.data == 'the sun' else 'far'}"


async def main() -> None:
    async with Queue("agents") as queue, Worker("agents", {"agent": agent, "look_up": look_up}):
        job = await queue.add("agent", attempts=2)
        result = await job.result(timeout=30)
        print(f"answer: {result['facts']} facts, the last is {result['last']!r}")
        print("model calls in all:", calls)


if __name__ == "__main__":
    asyncio.run(main())
