"""The text that stands after a stream's resets."""

from dataclasses import dataclass, field

from glidemq_llm.demo.kept import KeptText


@dataclass
class Chunk:
    id: str
    type: str
    content: str = ""
    fields: dict[str, str] = field(default_factory=dict)


def kept(*chunks: Chunk) -> KeptText:
    text = KeptText()
    for chunk in chunks:
        text.feed(chunk)
    return text


def test_only_content_is_text():
    text = kept(
        Chunk("1-0", "start"), Chunk("1-1", "content", "a"), Chunk("1-2", "reasoning", "hm")
    )

    assert text.text == "a"


def test_reset_without_a_commit_point_drops_everything():
    text = kept(
        Chunk("1-0", "content", "lost"),
        Chunk("2-0", "reset", fields={"keep_upto": "0"}),
        Chunk("2-1", "content", "kept"),
    )

    assert (text.text, text.resets, text.dropped) == ("kept", 1, 4)


def test_reset_keeps_what_lies_up_to_the_commit_point():
    text = kept(
        Chunk("9-9", "content", "first "),
        Chunk("10-0", "content", "second "),
        Chunk("10-10", "content", "lost"),
        Chunk("11-0", "reset", fields={"keep_upto": "10-2"}),
        Chunk("11-1", "content", "third"),
    )

    assert text.text == "first second third"
