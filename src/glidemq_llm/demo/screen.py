"""What the demo shows: answers side by side while they arrive, or plain lines where there is no terminal."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from rich.columns import Columns
from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.text import Text

from glidemq_core import Chunk, kept_text

PANEL_LINES = 11
PLAIN_WIDTH = 72  # characters collected before a plain line is printed


@dataclass(slots=True)
class Answer:
    """One job as the demo sees it."""

    title: str
    job_id: str
    limit: int
    """The longest answer, in tokens."""

    stream: list[Chunk] = field(default_factory=list[Chunk])
    pieces: int = 0
    """Content chunks of the current run."""

    resets: int = 0

    run: int = 0
    state: str = "waiting"
    worker: str = ""
    first_chunk_after: float | None = None
    """Seconds from add to the first content chunk."""

    @property
    def text(self) -> str:
        """What stands of the answer, after what resets took back."""
        return kept_text(self.stream)


class Screen(Protocol):
    """Where the demo's progress goes."""

    def changed(self, answer: Answer, piece: str) -> None:
        """An answer grew by a piece, or ended."""
        ...

    def reset(self, answer: Answer) -> None:
        """An answer starts again; what it had shown no longer stands."""
        ...

    def note(self, text: str) -> None:
        """Something happened that is worth a line."""
        ...


class PlainScreen:
    """Lines of text, each headed by the answer it belongs to."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._pending: dict[str, str] = {}

    def changed(self, answer: Answer, piece: str) -> None:
        """Print whole lines as they fill up."""
        pending = self._pending.get(answer.job_id, "") + piece.replace("\n", " ")
        ended = answer.state not in ("waiting", "active")
        if len(pending) >= PLAIN_WIDTH or (ended and pending):
            self._console.print(Text(f"{answer.title:>9} | {pending}"), soft_wrap=True)
            pending = ""
        self._pending[answer.job_id] = pending

    def reset(self, answer: Answer) -> None:
        """Say so, and leave out what had not filled a line."""
        self._pending.pop(answer.job_id, None)
        self.note(reset_text(answer))

    def note(self, text: str) -> None:
        """Print the note as a line of its own."""
        self._console.print(Text(f"{'*':>9} | {text}"), soft_wrap=True)


class LiveScreen:
    """One panel per answer, redrawn in place; notes stay above."""

    def __init__(self, live: Live, answers: list[Answer]) -> None:
        self._live = live
        self._answers = answers

    def changed(self, answer: Answer, piece: str) -> None:
        """Redraw at the display's own pace."""
        self._live.update(self.render())

    def reset(self, answer: Answer) -> None:
        """Say so, and take back what the panel had shown."""
        self.note(reset_text(answer))
        self._live.update(self.render())

    def note(self, text: str) -> None:
        """Print the note above the panels."""
        self._live.console.print(Text(text, style="bold yellow"))

    def render(self) -> Columns:
        """All panels side by side."""
        width = max(30, self._live.console.width // max(1, len(self._answers)) - 1)
        return Columns([_panel(answer, width) for answer in self._answers], padding=(0, 0))


def reset_text(answer: Answer) -> str:
    """What is said of a reset."""
    return f"{answer.title}: reset, the answer starts again (run {answer.run})"


_STYLES = {"waiting": "dim", "active": "cyan", "completed": "green"}


def _panel(answer: Answer, width: int) -> Panel:
    inside = width - 4
    lines = Text(answer.text).wrap(Console(width=inside), inside)[-PANEL_LINES:]
    text = Text("\n").join(lines)
    text.append("\n" * (PANEL_LINES - len(lines)))
    done = answer.limit if answer.state == "completed" else min(answer.pieces, answer.limit)
    style = _STYLES.get(answer.state, "red")
    worker = f" on {answer.worker}" if answer.worker and answer.state == "active" else ""
    return Panel(
        Group(text, ProgressBar(total=answer.limit, completed=done, width=inside)),
        title=answer.title,
        subtitle=f"{answer.state}{worker}, run {answer.run}, {answer.pieces} pieces",
        border_style=style,
        width=width,
    )
