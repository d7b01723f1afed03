"""Recipes of the cookbook, run as their reader runs them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

COOKBOOK = Path(__file__).parents[2] / "cookbook"
_PROMISE = re.compile(r'it prints:\n\n((?:    .*\n|\n)+)"""', re.IGNORECASE)
# Variables by which a recipe knows whom to ask.
_ASKED = ("_API_KEY", "_URL", "_HOST", "_PROFILE", "_PROJECT")


def run(recipe: Path, url: str, **env: str) -> subprocess.CompletedProcess[str]:
    """A recipe in a process of its own, with no key and no colours, warnings shown; `url`: the queue's server."""
    keyless = {name: value for name, value in os.environ.items() if not name.endswith(_ASKED)}
    return subprocess.run(
        [sys.executable, "-W", "default", str(recipe)],
        env={**keyless, "GLIDEMQ_URL": url, "NO_COLOR": "1", "PYTHONUNBUFFERED": "1", **env},
        capture_output=True,
        text=True,
        timeout=110,  # the tests that run them have 120
        check=False,
    )


def promised(recipe: Path) -> str:
    """What a recipe's docstring says it prints."""
    found = _PROMISE.search(recipe.read_text())
    assert found, f"{recipe.name} does not say what it prints"
    return "".join(line.removeprefix("    ") + "\n" for line in found.group(1).rstrip().split("\n"))
