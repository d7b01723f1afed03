"""The command line, each command a process of its own."""

import asyncio
import json
import os
import signal
import subprocess
import sys

from glidemq_core import Ledger, Queue, Throttle, Worker
from tests.harness.processes import eventually

HANDLER = """
async def shout(job):
    await job.stream_chunk("content", job.data["text"].upper())
    return {"said": job.data["text"].upper()}
"""


def glidemq(url: str, *arguments: str, **options) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "glidemq_core.cli", *arguments, "--url", url],
        capture_output=True,
        text=True,
        check=False,
        **options,
    )


def test_added_job_is_listed_and_counted(url):
    job_id = glidemq(url, "add", "cli-list", "shout", '{"text": "hi"}').stdout.strip()

    listed = json.loads(glidemq(url, "list", "cli-list", "waiting", "--json").stdout)
    counts = json.loads(glidemq(url, "counts", "cli-list", "--json").stdout)
    assert [job["id"] for job in listed] == [job_id]
    assert (counts["waiting"], counts["completed"]) == (1, 0)


def test_worker_command_runs_a_handler_and_stream_follows_it(url, tmp_path):
    (tmp_path / "handlers.py").write_text(HANDLER)
    job_id = glidemq(url, "add", "cli-run", "shout", '{"text": "hi"}').stdout.strip()
    worker = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "glidemq_core.cli",
            "worker",
            "cli-run",
            "handlers:shout",
            "--url",
            url,
        ],
        cwd=tmp_path,
    )
    try:
        result = json.loads(glidemq(url, "result", "cli-run", job_id, "--timeout", "20").stdout)
        stream = glidemq(url, "stream", "cli-run", job_id).stdout
    finally:
        worker.terminate()
        ended = worker.wait(20)

    assert (result, stream.strip(), ended) == ({"said": "HI"}, "HI", 0)


def test_events_go_on_behind_the_one_that_was_seen(url):
    ids = [glidemq(url, "add", "cli-events", "shout").stdout.strip() for _ in range(2)]
    follower = subprocess.Popen(
        [sys.executable, "-m", "glidemq_core.cli", "events", "cli-events", "--after", "", "--json"],
        env=os.environ | {"GLIDEMQ_URL": url},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        seen = [json.loads(follower.stdout.readline()) for _ in ids]
    finally:
        follower.send_signal(signal.SIGINT)
        follower.communicate(timeout=20)

    assert [(event["type"], event["job_id"]) for event in seen] == [("added", id) for id in ids]


async def test_waiting_job_is_listed_with_its_reason_and_signalled(url):
    async def ask(job):
        return (await job.wait_for_signal("approve", reason="over $100")).data

    async with (
        Queue("cli-people", connection=url) as queue,
        Worker(queue.name, ask, connection=url),
    ):
        job = await queue.add("n")

        async def waits():
            return await queue.suspended()

        await eventually(waits)
        listed = await asyncio.to_thread(glidemq, url, "suspended", "cli-people", "--json")
        table = await asyncio.to_thread(glidemq, url, "suspended", "cli-people")
        sent = await asyncio.to_thread(
            glidemq, url, "signal", "cli-people", job.id, "approve", '{"ok": true}'
        )
        result = await job.result(timeout=5)

    (one,) = json.loads(listed.stdout)
    assert (one["job_id"], one["waits_for"], one["reason"]) == (job.id, "approve", "over $100")
    assert "over $100" in table.stdout
    assert (sent.returncode, result) == (0, {"ok": True})


async def test_limiter_is_printed(url):
    async with Ledger(connection=url) as ledger:
        held = await ledger.reserve("c", limits={"p": Throttle(rpm=1, concurrency=2)})
        shown = json.loads((await asyncio.to_thread(glidemq, url, "limiter", "p")).stdout)
        await held.settle()

    assert (shown["running"], shown["concurrency"], shown["axes"]["rpm"]["used"]) == (1, 2, 1)


def test_unknown_job_is_one_line_and_exit_code_1(url):
    done = glidemq(url, "get", "cli-unknown", "nobody")

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.strip() == "glidemq: no job 'nobody' in queue 'cli-unknown'"


def test_data_that_is_not_json_is_refused(url):
    done = glidemq(url, "add", "cli-bad", "shout", "{text")

    assert done.returncode == 2
    assert "is not JSON" in done.stderr


def test_paused_queue_says_so_and_keeps_its_jobs(url):
    glidemq(url, "add", "cli-pause", "shout")

    assert glidemq(url, "pause", "cli-pause").returncode == 0
    assert json.loads(glidemq(url, "counts", "cli-pause", "--json").stdout)["waiting"] == 1
    assert glidemq(url, "resume", "cli-pause").returncode == 0


def test_fsck_is_silent_about_a_sound_queue_and_names_a_stray_key(url, server):
    glidemq(url, "add", "cli-fsck", "shout")

    sound = glidemq(url, "fsck", "cli-fsck")
    server.cmd("SET", "glidemq:{cli-fsck}:stray", "1")
    broken = glidemq(url, "fsck", "cli-fsck")

    assert (sound.returncode, sound.stdout) == (0, "")
    assert (broken.returncode, "stray" in broken.stdout) == (1, True)
