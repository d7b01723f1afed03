"""Connection URLs."""

from __future__ import annotations

import pytest

from glidemq_core._target import Target, parse, resolve
from glidemq_core.errors import InvalidOption


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("valkey://h", Target(addresses=(("h", 6379),))),
        ("redis://h:1/2", Target(addresses=(("h", 1),), database=2)),
        ("valkeys://h", Target(addresses=(("h", 6379),), tls=True)),
        (
            "rediss://h?ca=/etc/ca.pem",
            Target(addresses=(("h", 6379),), tls=True, ca="/etc/ca.pem"),
        ),
        (
            "valkeys://h?ca=a.pem&cert=c.pem&key=k.pem",
            Target(addresses=(("h", 6379),), tls=True, ca="a.pem", cert="c.pem", key="k.pem"),
        ),
        (
            "valkeys://h?insecure_tls=true",
            Target(addresses=(("h", 6379),), tls=True, insecure_tls=True),
        ),
        (
            "valkey://ann:p%40s%3As@h",
            Target(addresses=(("h", 6379),), username="ann", password="p@s:s"),
        ),
        ("valkey://:word@h", Target(addresses=(("h", 6379),), password="word")),
        (
            "valkey://a:1,b,[::1]:3?cluster=true",
            Target(addresses=(("a", 1), ("b", 6379), ("::1", 3)), cluster=True),
        ),
        ("unix:///run/my%20queue.sock", Target(socket="/run/my queue.sock")),
        ("valkey://h?allow_eviction=1", Target(addresses=(("h", 6379),), allow_eviction=True)),
    ],
)
def test_url_names_a_server(url, wanted):
    assert parse(url) == wanted


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("localhost:6379", "the scheme is not one of"),
        ("http://h", "the scheme is not one of"),
        ("valkey://", "a host is missing"),
        ("valkey://a,,b", "a host is missing"),
        ("valkey://h:99999", "range"),
        ("valkey://h/first", "the database is not a number"),
        ("valkey://h/1?cluster=true", "only database 0"),
        ("valkey://h?cluster=maybe", "cluster is not true or false"),
        ("valkey://h?clutser=true", "unknown parameters clutser"),
        ("valkey://h?ca=/etc/ca.pem", "are for TLS"),
        ("valkey://h?cert=c.pem&key=k.pem", "are for TLS"),
        ("valkeys://h?cert=c.pem", "cert and key go together"),
        ("valkeys://h?key=k.pem", "cert and key go together"),
        ("unix:///run/x.sock?insecure_tls=true", "are for TLS"),
        ("unix://run/x.sock", "unix:///path"),
    ],
)
def test_bad_url_is_refused_with_the_reason(url, reason):
    with pytest.raises(InvalidOption, match=reason) as caught:
        parse(url)

    assert caught.value.field == "connection"


@pytest.mark.parametrize(
    "url",
    ["valkey://ann:sesame@h:99999", "http://ann:sesame@h", "valkey://ann:sesame@h?x=1"],
)
def test_password_is_in_no_message(url):
    with pytest.raises(InvalidOption) as caught:
        parse(url)

    assert "sesame" not in str(caught.value) + repr(caught.value.value)


def test_password_is_not_shown():
    target = parse("valkey://ann:sesame@h")

    assert "sesame" not in f"{target} {target!r}"


def test_environment_names_the_server_where_nothing_else_does(monkeypatch):
    monkeypatch.setenv("GLIDEMQ_URL", "valkey://from-the-environment")

    assert str(resolve(None)) == "from-the-environment:6379"
    assert str(resolve("valkey://given")) == "given:6379"
    assert resolve(parse("valkey://x")) == parse("valkey://x")


def test_what_is_no_url_is_refused():
    with pytest.raises(InvalidOption, match="not a URL"):
        resolve(6379)  # pyright: ignore[reportArgumentType]
