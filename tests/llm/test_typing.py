"""Type checkers are happy with wrapped clients, and unhappy with what is wrong."""

import json
import re
import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

TYPING = Path(__file__).parents[1] / "typing"
GOOD = TYPING / "wrapped_clients.py"
WRONG = TYPING / "should_fail" / "wrapped_clients.py"
pytestmark = pytest.mark.skipif(shutil.which("pyright") is None, reason="pyright is not installed")


@pytest.fixture(scope="module")
def errors(tmp_path_factory) -> dict[str, set[int]]:
    """The lines in which pyright sees errors, by file; it is started where it finds no settings of the project."""
    done = subprocess.run(
        ["pyright", "--outputjson", "--pythonpath", sys.executable, str(GOOD), str(WRONG)],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path_factory.mktemp("elsewhere"),
    )
    report = json.loads(done.stdout)
    assert report["summary"]["filesAnalyzed"] == 2
    found: dict[str, set[int]] = defaultdict(set)
    for one in report["generalDiagnostics"]:
        if one["severity"] == "error":
            found[one["file"]].add(one["range"]["start"]["line"] + 1)
    return found


def test_wrapped_clients_keep_their_types(errors):
    assert errors[str(GOOD)] == set()


def test_mistakes_are_seen(errors):
    lines = enumerate(WRONG.read_text("utf-8").splitlines(), 1)
    marked = {number for number, line in lines if re.search(r"# error\b", line)}

    assert errors[str(WRONG)] == marked
