"""What a job remembers across its runs: finished steps, waits and their outcomes.

A handler that starts again from the top finds them here, so that nothing is paid or asked for twice. While there are
entries that this run has not come to yet, it is replaying: what it streams, logs or reports has been seen before and is
dropped.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Mapping
from typing import Any, Final, cast

import msgspec

from . import _codec

_UNKNOWN: Final = object()


class Journal:
    """The journal of one run. Keys are "kind:name#ordinal", the ordinal counted per name within the run; those of steps
    inside of a step begin with its key and a line break.
    """

    def __init__(self, flat: list[bytes]) -> None:
        pairs = _codec.texts_of(flat)
        self._entries = {key: text for key, text in pairs.items() if not key.startswith("?")}
        self._begun = {key[1:]: text for key, text in pairs.items() if key.startswith("?")}
        # A wait that was begun is where the last run stopped; a paid step that was begun may have to run again.
        self._unread = set(self._entries) | {
            key for key in self._begun if not key.startswith("step:")
        }
        self._has_nested = any("\n" in key for key in self._unread)
        self._ordinals: defaultdict[str, int] = defaultdict(int)
        self._open: set[str] = set()

    @property
    def is_replaying(self) -> bool:
        """Are there entries that this run has not come to yet?"""
        return bool(self._unread)

    def next_key(self, kind: str, name: str, *, inside: str = "") -> str:
        """The key of the next step or wait of this name.

        Args:
            inside: The key of the step that it is made in. A stored step is not entered again, so what it holds must
                not count for what follows it.
        """
        stem = f"{inside}\n{kind}:{name}" if inside else f"{kind}:{name}"
        self._ordinals[stem] += 1
        return f"{stem}#{self._ordinals[stem]}"

    def find(self, key: str) -> Any | None:
        """The stored entry, decoded; None if there is none."""
        text = self._entries.get(key)
        return None if text is None else _codec.loads(text)

    def begun(self, key: str) -> Any | None:
        """What was noted when a paid step began that never ended; None if it did not begin."""
        text = self._begun.get(key)
        return None if text is None else _codec.loads(text)

    def read(self, key: str) -> None:
        """The run has come to this entry, and so past those inside of it."""
        self._unread.discard(key)
        if self._has_nested:
            within = f"{key}\n"
            self._unread = {other for other in self._unread if not other.startswith(within)}

    def keep(self, key: str, text: str) -> Any:
        """Note an entry that the server has stored; answers it decoded."""
        self._entries[key] = text
        self._begun.pop(key, None)
        self._unread.discard(key)
        return _codec.loads(text)

    def signals(self) -> list[dict[str, Any]]:
        """All messages that waits of this job have taken, in no particular order."""
        found = (
            _codec.loads(text)
            for key, text in self._entries.items()
            if key.startswith(("signal:", "suspend:"))
        )
        return [entry for entry in found if not entry.get("timeout")]


def input_hash(args: tuple[object, ...], inputs: object = _UNKNOWN) -> str:
    """SHA-256 of the canonical JSON of a step's inputs: `inputs` if given, else those arguments that JSON can hold."""
    chosen = [_plain(arg) for arg in args] if inputs is _UNKNOWN else _plain(inputs)
    canonical = json.dumps(chosen, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()


NO_INPUTS: Final = _UNKNOWN


def _plain(value: object) -> object:
    try:
        plain = msgspec.to_builtins(value, str_keys=True)
    except (TypeError, ValueError):
        dump = getattr(value, "model_dump", None)
        return dump(mode="json") if callable(dump) else None
    return cast("Mapping[str, object]", plain)
