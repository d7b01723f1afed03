"""Random calls of two workers, in any order, repeated and lost, with a clock that jumps, beside a model of the states.

All changes of a queue's data happen inside functions, so an interleaving of processes is a sequence of calls. The model
knows from the state before a call which states may follow it, and what the call must answer.
"""

from __future__ import annotations

import os

import pytest

from tests.harness.servers import ValkeyServer
from tests.model.story import Story


def _play(server: ValkeyServer, seed: int, steps: int, check_every: int) -> Story:
    story = Story(server, f"story-{seed}", seed)
    try:
        for n in range(steps):
            story.step()
            if n % check_every == 0:
                story.check()
        story.finish()
        story.check()
    except BaseException as error:
        error.add_note(f"seed {seed}, the last steps:\n" + "\n".join(story.log))
        raise
    finally:
        story.connection.close()
    return story


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_any_order_of_calls_keeps_every_job_in_one_place(server: ValkeyServer, seed: int):
    story = _play(server, seed, steps=400, check_every=40)

    assert sum(story.ends.values()) > 50


@pytest.mark.faults
@pytest.mark.timeout(600)
def test_ten_thousand_calls_in_any_order_keep_every_job_in_one_place(server: ValkeyServer):
    seed = int(os.environ.get("GLIDEMQ_SEED", "701560"))  # this one once found a number used twice

    story = _play(server, seed, steps=10_000, check_every=100)

    assert sum(story.ends.values()) > 1000
