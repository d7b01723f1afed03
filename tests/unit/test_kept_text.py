"""What stands of a stream after its resets."""

from glidemq_core import Chunk, kept_text


def chunks(*lines):
    return [
        Chunk(f"{n}-0", type, content, 1, n, fields)
        for n, (type, content, fields) in enumerate(lines, 1)
    ]


def start(call):
    return ("start", "", {"call": call})


def reset(**facts):
    return ("reset", "", facts)


def test_reset_of_a_run_keeps_what_came_before_it():
    assert (
        kept_text(
            chunks(
                ("content", "a", None),
                ("content", "b", None),
                reset(keep_upto="1-0"),
                ("content", "c", None),
            )
        )
        == "ac"
    )


def test_reset_of_a_call_drops_what_came_since_its_start():
    lines = [
        ("content", "first ", None),
        start("1"),
        ("content", "half", None),
        reset(call="1"),
        start("2"),
        ("content", "whole", None),
    ]

    assert kept_text(chunks(*lines)) == "first whole"


def test_reset_of_a_call_leaves_those_that_answered_at_the_same_time():
    lines = [
        start("1"),
        ("content", "one alone, ", None),
        start("2"),
        ("content", "one again, ", {"call": "1"}),
        ("content", "two, ", {"call": "2"}),
        start("3"),
        ("content", "three, ", {"call": "3"}),
        ("content", "two.", {"call": "2"}),
        reset(call="1"),
    ]

    assert kept_text(chunks(*lines)) == "two, three, two."
    assert kept_text([*chunks(*lines), *chunks(reset(call="2"))]) == "three, "


def test_reset_of_a_call_that_never_started_drops_nothing():
    assert kept_text(chunks(("content", "a", None), reset(call="9"))) == "a"
