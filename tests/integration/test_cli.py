"""The command line, each command a process of its own."""

import json
import os
import signal
import subprocess
import sys

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
