"""What images, audio and documents cost in tokens, by family of models. As of 2026-11; vendors
change it often.
"""

from __future__ import annotations

import base64
import binascii
import re
from math import ceil
from typing import Literal, NamedTuple

UNKNOWN_IMAGE = 1600
_PAGE_BYTES = 50_000
_PAGE_TOKENS = 2_000
_AUDIO_BYTES_PER_SECOND = (
    16_000  # a usual compressed recording; an uncompressed one is over-counted
)
_AUDIO_TOKENS_PER_SECOND = 32
_VIDEO_TOKENS_PER_SECOND = 263
_VIDEO_BYTES_PER_SECOND = 250_000

# Tokens per 32-pixel patch, for OpenAI's models that count patches instead of tiles.
_PATCH_MODELS = (
    (re.compile(r"gpt-(4\.1|5(\.\d)?)-mini"), 1.62),
    (re.compile(r"gpt-(4\.1|5(\.\d)?)-nano"), 2.46),
    (re.compile(r"o4-mini"), 1.72),
)
_TILES_MINI = (2833, 5667)
_TILES = (85, 170)

Kind = Literal["image", "audio", "video", "document"]


class Medium(NamedTuple):
    """One piece of a prompt that is not text.

    Attributes:
        size: (width, height) in pixels, where it could be read from the data.
        length: Bytes of data, where they are in the request.
        is_low: The request asks for low detail.
    """

    kind: Kind
    size: tuple[int, int] | None = None
    length: int = 0
    is_low: bool = False


def medium_tokens(medium: Medium, family: str, model: str) -> int:
    """Estimated tokens of one medium."""
    match medium.kind:
        case "image":
            return image_tokens(medium, family, model)
        case "audio":
            return max(100, medium.length // _AUDIO_BYTES_PER_SECOND * _AUDIO_TOKENS_PER_SECOND)
        case "video":
            return max(
                _VIDEO_TOKENS_PER_SECOND,
                medium.length // _VIDEO_BYTES_PER_SECOND * _VIDEO_TOKENS_PER_SECOND,
            )
        case "document":
            return max(_PAGE_TOKENS, ceil(medium.length / _PAGE_BYTES) * _PAGE_TOKENS)


def image_tokens(image: Medium, family: str, model: str) -> int:
    """Estimated tokens of one image by its vendor's formula; 1,600 where the size is not known."""
    if family == "openai":
        return _openai_tokens(image, model)
    if image.size is None:
        return UNKNOWN_IMAGE
    width, height = image.size
    if family == "anthropic":
        return min(UNKNOWN_IMAGE, ceil(width * height / 750))
    if family == "google":
        is_small = width <= 384 and height <= 384
        return 258 if is_small else 258 * ceil(width / 768) * ceil(height / 768)
    return min(UNKNOWN_IMAGE, max(258, ceil(width * height / 750)))


def _openai_tokens(image: Medium, model: str) -> int:
    for pattern, factor in _PATCH_MODELS:
        if pattern.search(model):
            width, height = image.size or (1024, 1024)
            return ceil(min(1536, ceil(width / 32) * ceil(height / 32)) * factor)
    base, per_tile = _TILES_MINI if "gpt-4o-mini" in model else _TILES
    if image.is_low:
        return base
    if image.size is None:
        return UNKNOWN_IMAGE if base == _TILES[0] else base + 4 * per_tile
    return base + per_tile * _tiles(*image.size)


def _tiles(width: int, height: int) -> int:
    """512-pixel tiles after fitting into 2048 and bringing the short side to 768."""
    scale = min(1.0, 2048 / max(width, height))
    scale *= min(1.0, 768 / (min(width, height) * scale))
    return ceil(width * scale / 512) * ceil(height * scale / 512)


def decoded_head(encoded: str, limit: int = 65_536) -> bytes:
    """The first bytes of base64 text; empty if it is none."""
    try:
        return base64.b64decode(encoded[: limit // 3 * 4])
    except (binascii.Error, ValueError):
        return b""


def image_size(head: bytes) -> tuple[int, int] | None:
    """(width, height) from the first bytes of a PNG, GIF, WebP or JPEG."""
    size: tuple[int, int] | None = None
    if head.startswith(b"\x89PNG\r\n\x1a\n") and len(head) >= 24:
        size = int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")
    elif head[:6] in (b"GIF87a", b"GIF89a") and len(head) >= 10:
        size = int.from_bytes(head[6:8], "little"), int.from_bytes(head[8:10], "little")
    elif head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        size = _webp_size(head)
    elif head[:2] == b"\xff\xd8":
        size = _jpeg_size(head)
    return size if size and all(size) else None


def _webp_size(head: bytes) -> tuple[int, int] | None:
    if head[12:16] == b"VP8X" and len(head) >= 30:
        return int.from_bytes(head[24:27], "little") + 1, int.from_bytes(head[27:30], "little") + 1
    if head[12:16] == b"VP8 " and len(head) >= 30:
        mask = 0x3FFF
        return int.from_bytes(head[26:28], "little") & mask, int.from_bytes(
            head[28:30], "little"
        ) & mask
    if head[12:16] == b"VP8L" and len(head) >= 25:
        bits = int.from_bytes(head[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    return None


def _jpeg_size(head: bytes) -> tuple[int, int] | None:
    """Walk the segments up to the frame header, which has the size."""
    at = 2
    while at + 9 < len(head) and head[at] == 0xFF:
        marker = head[at + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return int.from_bytes(head[at + 7 : at + 9], "big"), int.from_bytes(
                head[at + 5 : at + 7], "big"
            )
        at += 2 + int.from_bytes(head[at + 2 : at + 4], "big")
    return None
