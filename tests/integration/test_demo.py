"""The demonstration, as a user runs it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.model, pytest.mark.timeout(180)]


def run(folder: Path, *arguments: str) -> str:
    """Run a Python program with an embedded server of its own; its output."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in ("GLIDEMQ_URL", "OPENAI_API_KEY")
    }
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=kept | {"GLIDEMQ_DIR": str(folder / ".glidemq"), "COLUMNS": "150"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_demo_survives_a_killed_worker_and_keeps_the_text(tmp_path):
    output = run(tmp_path, "-m", "glidemq_core.cli", "demo")

    assert "killed worker" in output
    assert "reset, the answer starts again" in output
    assert "equals every result's text" in output


def test_demo_table_shows_runs_tokens_and_money(tmp_path):
    output = run(tmp_path, "-m", "glidemq_core.cli", "demo", "--no-kill")

    rows = [line for line in output.splitlines() if "smollm2" in line and "completed" in line]
    assert len(rows) == 4
    assert all(re.search(r"1 \(1\) +(cached_)?input [\d,]+ +\$0\.0000\d\d", row) for row in rows)
