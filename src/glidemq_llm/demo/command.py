"""`glidemq demo`: chat jobs on two workers; one worker is killed in mid-answer, and nothing is lost."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from contextlib import AsyncExitStack, nullcontext
from dataclasses import dataclass
from typing import Annotated

import typer
from rich.console import Console
from rich.live import Live

from glidemq_core import Queue
from glidemq_llm.demo.model_server import MODEL_NAME
from glidemq_llm.demo.processes import Processes, WorkerProcess
from glidemq_llm.demo.screen import Answer, LiveScreen, PlainScreen, Screen
from glidemq_llm.demo.summary import kept_text_is_result, summary_table

LOCAL_MODEL = f"openai/{MODEL_NAME}"
QUESTIONS = {
    "sky": "Explain in a few sentences why the sky is blue.",
    "tides": "Explain in a few sentences what causes the tides.",
    "bees": "Describe how a bee finds flowers.",
    "letter": "Write a short letter to a friend about the sea.",
}
LOCAL_ANSWER_TOKENS = 120
ANSWER_TOKENS = 1000  # a reasoning model spends some of them before it answers
KILL_AFTER = 20  # content chunks of one answer
LEASE = 3.0  # seconds; short, so that one sees a killed worker's job move soon
PATIENCE = 300.0  # seconds until the demo gives up


@dataclass(slots=True)
class Demo:
    """One run of the demonstration."""

    queue: Queue
    model: str
    screen: Screen
    answers: list[Answer]
    workers: list[WorkerProcess]
    kill: bool = True

    async def follow(self, answer: Answer, added_at: float) -> None:
        """Show one answer while it arrives, to its end."""
        async for chunk in self.queue.stream(answer.job_id):
            answer.stream.append(chunk)
            if chunk.type == "content":
                answer.state, answer.run = "active", chunk.epoch
                answer.worker = self._worker_of(answer.job_id)
                answer.pieces += 1
                if answer.first_chunk_after is None:
                    answer.first_chunk_after = time.monotonic() - added_at
                if self.kill and answer.pieces >= KILL_AFTER:
                    self._kill_worker_of(answer)
                self.screen.changed(answer, chunk.content)
            elif chunk.type == "reset":
                answer.pieces, answer.run = 0, chunk.epoch
                answer.resets += 1
                self.screen.reset(answer)
        job = await self.queue.get(answer.job_id)
        answer.state = job.state if job else "gone"
        self.screen.changed(answer, "")

    def _worker_of(self, job_id: str) -> str:
        names = [worker.name for worker in self.workers if job_id in worker.jobs]
        return names[-1] if names else ""

    def _kill_worker_of(self, answer: Answer) -> None:
        for worker in self.workers:
            if answer.job_id in worker.jobs:
                self.kill = False
                worker.kill()
                self.workers.remove(worker)
                self.screen.note(
                    f"killed worker {worker.name} (kill -9) after chunk {answer.pieces} of {answer.title!r}; "
                    f"its jobs move when their lease of {LEASE:g} s ends"
                )
                return


def _limit(model: str) -> dict[str, int]:
    """The longest answer, under the name that the model's vendor has for it."""
    if model == LOCAL_MODEL:
        return {"max_tokens": LOCAL_ANSWER_TOKENS}
    name = "max_completion_tokens" if model.startswith("openai/") else "max_tokens"
    return {name: ANSWER_TOKENS}


async def _add(queue: Queue, model: str) -> list[Answer]:
    limit = _limit(model)
    answers: list[Answer] = []
    for title, question in QUESTIONS.items():
        job = await queue.add(
            "chat",
            {
                "model": model,
                "messages": [{"role": "user", "content": question}],
                **limit,
            },
            lock_duration=LEASE,
            attempts=2,
        )
        answers.append(Answer(title, job.id, limit=sum(limit.values())))
    return answers


async def _environment(processes: Processes, model: str) -> dict[str, str]:
    """What the workers need to reach the model: nothing but keys, or the address of the local one."""
    if model:
        return {}
    url = await processes.model_server(slots=2)
    return {"OPENAI_BASE_URL": f"{url}/v1", "OPENAI_API_KEY": "local"}


async def run_demo(*, model: str, queue_name: str, plain: bool, kill: bool) -> bool:
    """Run the demonstration and print its table.

    Returns:
        Whether every job completed, and every text kept after the resets is the result's text.
    """
    console = Console()
    async with AsyncExitStack() as stack:
        queue = await stack.enter_async_context(Queue(queue_name))
        processes = await stack.enter_async_context(Processes())
        environment = await _environment(processes, model)
        workers = [await processes.worker(name, queue_name, environment) for name in ("A", "B")]
        name = model or LOCAL_MODEL
        about = name if model else f"{name} on this machine, at made-up prices"
        console.print(
            f"Model {about}, queue {queue_name!r}, "
            + " and ".join(
                f"worker {worker.name} (process {worker.process.pid})" for worker in workers
            )
        )
        started = time.monotonic()
        answers = await _add(queue, name)
        live = None if plain else Live(console=console, refresh_per_second=12)
        screen = LiveScreen(live, answers) if live else PlainScreen(console)
        demo = Demo(queue, name, screen, answers, workers, kill)
        with live or nullcontext():
            await _follow_all(demo, started)
        return await _report(queue, answers, console)


async def _follow_all(demo: Demo, started: float) -> None:
    try:
        async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as group:
            for answer in demo.answers:
                group.create_task(demo.follow(answer, started))
    except (asyncio.CancelledError, TimeoutError):
        # Ctrl-C, or patience has ended: leave no job behind for the next one who uses this queue.
        for answer in demo.answers:
            await demo.queue.cancel(answer.job_id)
        raise


async def _report(queue: Queue, answers: list[Answer], console: Console) -> bool:
    jobs = [await queue.get(answer.job_id) for answer in answers]
    console.print(summary_table(answers, jobs))
    for job in jobs:
        if job and job.error and job.state != "completed":
            console.print(
                f"job {job.id}: {job.error.error_class}: {job.error.message}", markup=False
            )
    complete = all(job and job.state == "completed" for job in jobs)
    same = all(kept_text_is_result(answer, job) for answer, job in zip(answers, jobs, strict=True))
    resets = sum(answer.resets for answer in answers)
    console.print(
        f"{resets} resets. The streamed text, after its resets, "
        + ("equals every result's text." if same else "DIFFERS from a result's text.")
    )
    return complete and same


def _check_key(model: str) -> None:
    vendor = model.partition("/")[0]
    if vendor not in ("openai", "anthropic"):
        raise typer.BadParameter("openai/NAME or anthropic/NAME", param_hint="--model")
    key = f"{vendor.upper()}_API_KEY"
    if not os.environ.get(key):
        raise typer.BadParameter(f"{key} is not set", param_hint="--model")


def demo(
    model: Annotated[
        str,
        typer.Option(
            help="A real one instead, with its key set: openai/gpt-5-mini, anthropic/claude-haiku-4-5"
        ),
    ] = "",
    queue: Annotated[str, typer.Option(help="The queue to use.")] = "ai",
    plain: Annotated[bool, typer.Option("--plain", help="Lines instead of panels.")] = False,
    kill: Annotated[bool, typer.Option(help="Kill a worker in mid-answer.")] = True,
) -> None:
    """Chat jobs on two workers, live; one worker is killed in mid-answer, and nothing is lost."""
    if model:
        _check_key(model)
    plain = plain or not sys.stdout.isatty()
    try:
        ok = asyncio.run(run_demo(model=model, queue_name=queue, plain=plain, kill=kill))
    except (RuntimeError, TimeoutError) as error:
        print(f"glidemq demo: {str(error) or f'gave up after {PATIENCE:g} s'}", file=sys.stderr)
        ok = False
    sys.exit(0 if ok else 1)
