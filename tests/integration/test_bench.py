"""The benchmarks still run; their figures are for people."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.faults

BENCH = Path(__file__).parents[2] / "bench"


@pytest.mark.parametrize(
    ("arguments", "figures"),
    [
        (
            ["throughput.py", "drain", "--peers", "glidemq", "--jobs", "300", "--runs", "1"],
            ["jobs/s", "server calls/job"],
        ),
        (
            ["throughput.py", "bytes", "--peers", "glidemq", "--jobs", "300", "--runs", "1"],
            ["bytes/waiting job"],
        ),
        (["latency.py", "--peers", "glidemq", "--jobs", "20", "--runs", "1"], ["p50 ms"]),
        (
            [
                "streams.py",
                "read",
                "--streams",
                "20",
                "--rate",
                "500",
                "--seconds",
                "0.5",
                "--runs",
                "1",
            ],
            ["p99 ms"],
        ),
        (["middleware.py", "chunks", "--apis", "openai", "--rounds", "1"], ["CPU per chunk us"]),
        (["budget.py", "--open", "50", "--calls", "50"], ["three budgets, one limiter"]),
        (
            ["throttle.py", "--processes", "2", "--seconds", "1", "--parked", "20"],
            ["fullest minute", "server calls a second"],
        ),
    ],
    ids=["drain", "bytes", "latency", "read", "middleware", "budget", "throttle"],
)
def test_benchmark_prints_its_figures(arguments, figures):
    script, *rest = arguments

    done = subprocess.run(
        [sys.executable, str(BENCH / script), *rest],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert all(figure in done.stdout for figure in figures)
