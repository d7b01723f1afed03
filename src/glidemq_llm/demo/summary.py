"""The table at the demo's end."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any

from rich.box import SIMPLE
from rich.table import Table

from glidemq_core import Job
from glidemq_llm.demo.screen import Answer

COLUMNS = (
    "job",
    "model",
    "state",
    "tries (runs)",
    "tokens",
    "cost",
    "first token (s)",
    "wall time (s)",
)


def summary_table(answers: list[Answer], jobs: list[Job | None]) -> Table:
    """One line per job: what it took in runs, tokens, money and time."""
    table = Table(title="What it took", box=SIMPLE, padding=(0, 1, 0, 0), pad_edge=False)
    for name in COLUMNS:
        table.add_column(name, no_wrap=name in ("model", "state", "tokens", "cost"))
    for answer, job in zip(answers, jobs, strict=True):
        table.add_row(*_row(answer, job))
    return table


def _row(answer: Answer, job: Job | None) -> list[str]:
    if job is None:
        return [answer.title, "", "gone", "", "", "", "", ""]
    usage = job.usage
    return [
        answer.title,
        ", ".join(sorted({call["model"] for call in usage.calls if call.get("model")})),
        job.state,
        f"{job.attempt} ({job.run})",
        "\n".join(f"{name} {count:,}" for name, count in sorted(usage.tokens.items())),
        cost_text(usage.total_cost),
        _seconds(answer.first_chunk_after),
        _seconds(_between(job.created_at, job.finished_at)),
    ]


def cost_text(cost: Decimal | None) -> str:
    """A price as text; one that is not known is never shown as zero."""
    return "unpriced" if cost is None else f"${cost:.6f}"


def _between(start: datetime | None, end: datetime | None) -> float | None:
    return (end - start).total_seconds() if start and end else None


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def result_text(result: Any) -> str:
    """The answer's text in a job's result."""
    return str(result["text"])


def kept_text_is_result(answer: Answer, job: Job | None) -> bool:
    """Whether the streamed text, resets applied, is the text of the job's result."""
    return job is not None and job.result is not None and answer.text == result_text(job.result)
