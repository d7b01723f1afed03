"""Fail when a file has grown too long to be read in one go.

Python files may have 500 lines, Lua files 120. A file that is better whole says so in a comment of its own,
`# size: reason` (Lua: `-- size: reason`).
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

LIMITS = {".py": 500, ".lua": 120}
EXCEPTION = re.compile(r"^(#|--) size: \S", re.MULTILINE)


def too_long(path: Path) -> str | None:
    """Say what is wrong with a file's size, or None."""
    limit = LIMITS[path.suffix]
    text = path.read_text(encoding="utf-8")
    lines = text.count("\n")
    if lines <= limit or EXCEPTION.search(text):
        return None
    return f"{path}: {lines} lines, the limit is {limit} (split it, or write `size: reason`)"


def main() -> int:
    """Check every file known to git, and those about to be."""
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.py", "*.lua"],
        check=True,
        capture_output=True,
        text=True,
    )
    paths = [Path(line) for line in listing.stdout.splitlines()]
    faults = [fault for path in paths if path.exists() and (fault := too_long(path))]
    for fault in faults:
        print(fault)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
