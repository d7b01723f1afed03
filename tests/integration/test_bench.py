"""The benchmarks still run; their figures are for people."""

import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[2] / "bench"


@pytest.mark.parametrize(
    ("arguments", "figures"),
    [
        (
            ["throughput.py", "drain", "--peers", "glidemq", "--jobs", "300"],
            ["jobs/s", "server calls/job"],
        ),
        (["throughput.py", "bytes", "--peers", "glidemq", "--jobs", "300"], ["bytes/waiting job"]),
        (["latency.py", "--peers", "glidemq", "--jobs", "20"], ["p50 ms"]),
        (
            ["streams.py", "read", "--streams", "20", "--rate", "500", "--seconds", "0.5"],
            ["p99 ms"],
        ),
        (["middleware.py", "chunks", "--apis", "openai"], ["CPU per chunk us"]),
    ],
    ids=["drain", "bytes", "latency", "read", "middleware"],
)
def test_benchmark_prints_its_figures(arguments, figures):
    script, *rest = arguments
    once = "--rounds" if script == "middleware.py" else "--runs"

    done = subprocess.run(
        [sys.executable, str(BENCH / script), *rest, once, "1"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert all(figure in done.stdout for figure in figures)
