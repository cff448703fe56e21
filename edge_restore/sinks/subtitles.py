"""Subtitles as MP4 has them: plain text, a sample each (3GPP TS 26.245, "timed text")."""

from __future__ import annotations

import html
import re
import struct

TEXT_CODECS = {"subrip", "srt", "ass", "ssa", "webvtt", "text"}
"""FFmpeg's names of what `plain_text` reads."""

_MOST_BYTES = 0xFFFF  # of one sample

_STYLE = (
    "Name, Fontname, Fontsize, PrimaryColour, SecondaryColour, OutlineColour, BackColour, Bold, "
    "Italic, Underline, StrikeOut, ScaleX, ScaleY, Spacing, Angle, BorderStyle, Outline, Shadow, "
    "Alignment, MarginL, MarginR, MarginV, Encoding"
)
HEADER = (
    "[Script Info]\nScriptType: v4.00+\nPlayResX: 384\nPlayResY: 288\n\n"
    f"[V4+ Styles]\nFormat: {_STYLE}\n"
    "Style: Default,Sans,16,&Hffffff,&Hffffff,&H0,&H0,0,0,0,0,100,100,0,0,1,1,0,2,10,10,10,0\n\n"
    "[Events]\nFormat: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text\n"
).encode()
"""From it FFmpeg's encoder makes the track's default style."""


def plain_text(codec: str, content: bytes) -> str:
    """The text of one packet without tags and styles; empty when it shows none.

    Args:
        codec: one of `TEXT_CODECS`.
        content: the packet.
    """
    text = content.decode("utf-8", "replace").replace("\r\n", "\n").strip("\0\n ")
    if codec in ("ass", "ssa"):
        # Eight fields come before the text: order, layer, style, name, three margins, effect.
        text = text.split(",", 8)[-1]
        text = re.sub(r"\\[Nn]", "\n", text).replace(r"\h", "\N{NO-BREAK SPACE}")
    if codec != "text":
        text = re.sub(r"\{\\[^}]*\}", "", text)
        text = re.sub(r"</?[a-zA-Z][^<>]*>|<\d[\d:.]*>", "", text)
    if codec == "webvtt":
        text = html.unescape(text)
    return text.strip()


def sample(text: str) -> bytes:
    """The text as a sample: its length in bytes before it."""
    content = text.encode()
    if len(content) > _MOST_BYTES:
        content = content[:_MOST_BYTES].decode("utf-8", "ignore").encode()
    return struct.pack(">H", len(content)) + content
