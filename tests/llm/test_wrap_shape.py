"""What a wrapped client looks like from outside: as the given one does. And nobody else's is another than before."""

from __future__ import annotations

import inspect
from operator import attrgetter

import pytest

from glidemq_llm import wrap

KEY = {"api_key": "none"}
OPENAI = """chat.completions.create chat.completions.parse chat.completions.stream completions.create
    chat.completions.with_raw_response.create responses.create responses.parse responses.stream embeddings.create""".split()
ANTHROPIC = """messages.create messages.parse messages.stream messages.count_tokens beta.messages.create
    beta.messages.stream""".split()
COHERE = ["chat", "chat_stream", "embed", "rerank"]
OLLAMA = ["chat", "generate", "embed"]
GEMINI = ["generate_content", "generate_content_stream", "embed_content"]
MISTRAL = """chat.complete chat.complete_async chat.stream chat.stream_async embeddings.create
    embeddings.create_async""".split()
AZURE = {"azure_endpoint": "https://a.test", "api_version": "1", **KEY}
AWS = {
    "service_name": "bedrock-runtime",
    "region_name": "us-east-1",
    "aws_access_key_id": "none",
    "aws_secret_access_key": "none",
}
CLIENTS = [
    ("openai", "AsyncOpenAI", KEY, OPENAI),
    ("openai", "OpenAI", KEY, OPENAI),
    ("openai", "AsyncAzureOpenAI", AZURE, OPENAI),
    ("openai", "AzureOpenAI", AZURE, OPENAI),
    ("anthropic", "AsyncAnthropic", KEY, ANTHROPIC),
    ("anthropic", "Anthropic", KEY, ANTHROPIC),
    (
        "google.genai",
        "Client",
        KEY,
        [f"{where}models.{name}" for where in ("", "aio.") for name in GEMINI],
    ),
    ("mistralai.client", "Mistral", KEY, MISTRAL),
    ("cohere", "AsyncClientV2", KEY, COHERE),
    ("cohere", "ClientV2", KEY, COHERE),
    ("ollama", "AsyncClient", {}, OLLAMA),
    ("ollama", "Client", {}, OLLAMA),
    ("boto3", "client", AWS, ["converse", "converse_stream"]),
]


def functions_of(kind: type) -> dict[tuple[type, str], object]:
    """What the classes of a client define themselves, by class and name."""
    found = {}
    for cls in kind.__mro__:
        found |= {(cls, name): value for name, value in vars(cls).items() if callable(value)}
    return found


@pytest.mark.parametrize(
    ("package", "name", "options", "methods"),
    CLIENTS,
    ids=[f"{row[0]}.{row[1]}" for row in CLIENTS],
)
def test_wrapped_client_has_the_methods_of_the_given_one_and_changes_no_class(
    package, name, options, methods
):
    client = getattr(pytest.importorskip(package), name)(**options)
    given = {method: attrgetter(method)(client) for method in methods}
    owners = {
        type(attrgetter(m.rpartition(".")[0])(client) if "." in m else client) for m in methods
    }
    before = {owner: functions_of(owner) for owner in owners}

    wrapped = wrap(client)

    assert isinstance(wrapped, type(client))
    for method, plain in given.items():
        metered = attrgetter(method)(wrapped)
        assert inspect.signature(metered) == inspect.signature(plain), method
        assert metered.__doc__ == plain.__doc__, method
    assert {owner: functions_of(owner) for owner in owners} == before
