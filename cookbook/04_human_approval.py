"""A job that waits for a person: for days, holding no slot, no connection and no memory, whatever happens to its worker.

    python cookbook/04_human_approval.py

It prints:

    writing the draft
    waiting: publish waits for 'review' (draft: The tides rise and fall.)
    the worker has stopped; the job has not noticed
    published: The tides rise and fall. (approved by Ada)
    nobody answered: the draft was dropped
"""

import asyncio

from glidemq_core import Queue, SignalTimeout, Worker


async def write_draft(topic: str) -> str:
    print("writing the draft")
    return f"The {topic} rise and fall."


async def publish(job):
    # Whenever the job goes on, its handler starts again from the top, perhaps in another process. A step's result
    # is remembered: the draft is written (and paid for) once.
    draft = await job.step("draft", write_draft, job.data["topic"])
    review = await job.wait_for_signal("review", timeout=7 * 86_400, reason=f"draft: {draft}")
    return f"published: {draft} (approved by {review.data['by']})"


async def hurried(job):
    try:
        await job.wait_for_signal("review", timeout=0.2)
    except SignalTimeout:
        return "nobody answered: the draft was dropped"


HANDLERS = {"publish": publish, "hurried": hurried}


async def main() -> None:
    async with Queue("approval") as queue:
        async with Worker("approval", HANDLERS):
            job = await queue.add("publish", {"topic": "tides"})
            async for event in queue.events(
                after=""
            ):  # a person's inbox would list queue.suspended()
                if event.type == "suspended":
                    break
            for waiting in await queue.suspended():
                print(
                    f"waiting: {waiting.job_name} waits for {waiting.waits_for!r} ({waiting.reason})"
                )
        print("the worker has stopped; the job has not noticed")

        # Sent while nobody runs: it is kept. Sending it again with the same signal_id would be the same signal.
        await job.signal("review", {"by": "Ada"})

        async with Worker("approval", HANDLERS):
            print(await job.result(timeout=30))
            job = await queue.add("hurried")
            print(await job.result(timeout=30))


if __name__ == "__main__":
    asyncio.run(main())
