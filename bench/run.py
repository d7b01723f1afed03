"""Everything, side by side with the peers that can run here: `make bench`.

    python bench/run.py [--quick]

With the append-only file off and on; then what wrapping a client costs. `--quick` is one run of each with it off.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def main() -> None:
    quick = "--quick" in sys.argv[1:]
    for aof in [[]] if quick else [[], ["--aof"]]:
        for script in ("throughput.py", "latency.py", "streams.py", "quiet.py"):
            runs = ["--runs", "1"] if quick else []
            subprocess.run([sys.executable, str(HERE / script), *aof, *runs], check=True)
    rounds = ["--rounds", "3"] if quick else []
    subprocess.run([sys.executable, str(HERE / "middleware.py"), *rounds], check=True)


if __name__ == "__main__":
    main()
