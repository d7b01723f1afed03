"""dramatiq, driven with the sub-commands that bench/README.md describes.

Its native kind of handler is synchronous, so concurrency is threads; more than 8 only slow it down. It keeps nothing
of a finished job.
"""

import json
import resource
import sys
import threading
import time

import dramatiq
from dramatiq.brokers.redis import RedisBroker

THREADS = 8
FILLER = "x" * 140


def payload(number, at=0.0):
    return {"number": number, "at": at, "user": "someone@example.test", "filler": FILLER}


def say(value):
    print(json.dumps(value), flush=True)


def cpu():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def actor(broker, handler):
    """The one actor, whose body a role supplies."""
    return dramatiq.actor(
        handler, broker=broker, actor_name="noop", queue_name="bench", max_retries=0
    )


def nothing(_data):
    pass


def work_until_stdin_ends(broker):
    worker = dramatiq.Worker(broker, worker_threads=THREADS)
    worker.start()
    sys.stdin.read()
    worker.stop()


def fill(broker, count):
    add = actor(broker, nothing)
    for number in range(count):
        add.send(payload(number))


def drain(broker, _concurrency, count, _keep, work):
    lock = threading.Lock()
    state = {"done": 0, "first": 0.0, "used": 0.0}

    def handler(_data):
        with lock:
            if not state["first"]:
                state["first"], state["used"] = time.monotonic(), cpu()
        if work:
            time.sleep(work)
        with lock:
            state["done"] += 1
            if state["done"] == count:
                seconds = time.monotonic() - state["first"]
                say({"seconds": seconds, "cpu_us": (cpu() - state["used"]) / count * 1e6})

    actor(broker, handler)
    work_until_stdin_ends(broker)


def add_for(add, seconds, in_flight):
    start = time.monotonic()
    added = [0] * in_flight

    def loop(index):
        while time.monotonic() < start + seconds:
            add.send(payload(index))
            added[index] += 1

    threads = [threading.Thread(target=loop, args=(index,)) for index in range(in_flight)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(added) / (time.monotonic() - start)


def enqueue(broker, seconds):
    add = actor(broker, nothing)
    serial = add_for(add, seconds, 1)
    # It has no bulk add: the third figure is the second.
    in_flight = add_for(add, seconds, 50)
    say({"serial": serial, "in_flight": in_flight, "bulk": in_flight})


def listen(broker, _concurrency, count):
    latencies = []

    def handler(data):
        now = time.monotonic()
        if data["at"]:
            latencies.append((now - data["at"]) * 1000)
        if len(latencies) == count:
            say({"latencies": latencies})

    actor(broker, handler)
    say({"ready": True})
    work_until_stdin_ends(broker)


def pace(broker, count, gap):
    add = actor(broker, nothing)
    for number in range(20):
        add.send(payload(number))
        time.sleep(gap)
    due = time.monotonic()
    for number in range(count):
        add.send(payload(number, time.monotonic()))
        due += gap
        time.sleep(max(0.0, due - time.monotonic()))


COMMANDS = {
    "fill": (fill, (int,)),
    "drain": (drain, (int, int, int, float)),
    "enqueue": (enqueue, (float,)),
    "listen": (listen, (int, int)),
    "pace": (pace, (int, float)),
}


def main():
    name, url, *rest = sys.argv[1:]
    command, types = COMMANDS[name]
    broker = RedisBroker(url=url.replace("valkey://", "redis://"))
    command(broker, *(convert(text) for convert, text in zip(types, rest, strict=True)))


if __name__ == "__main__":
    main()
