"""What a paid step had streamed before it was interrupted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from ._chunk import Chunk, Naming
from .stream import kept_text

if TYPE_CHECKING:
    from ._host import Host
    from ._run import Run

_PAGE: Final = 1000
_PAGE_BYTES: Final = 4 * 1_048_576


async def partial_text(run: Run, host: Host, begun: Mapping[str, Any]) -> str:
    """The content that stands of what was streamed in the run that began a step, from that beginning on.

    Args:
        begun: What was noted when it began: the run, and the number of the run's last chunk before.
    """
    chunks: list[Chunk] = []
    naming, after = Naming(), ""
    while True:
        args: dict[str, object] = {
            "jobs": [[run.id, after]],
            "limit": _PAGE,
            "bytes": _PAGE_BYTES,
        }
        entries, _, _, _ = (await host.client.call("stream_read_many", host.root, args))[0]
        if not entries:
            break
        chunks += naming.chunks(entries)
        after = chunks[-1].id
    first = begun.get("seq", 0)
    return kept_text(one for one in chunks if one.epoch == begun["run"] and one.seq > first)
