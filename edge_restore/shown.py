"""Text from elsewhere (file names, tags, what libraries say) as it may be shown to a person.

A terminal obeys the control characters in what is printed: a file's name can recolor the screen,
rewrite a line, or turn the text around. So they are shown, not obeyed.
"""

from __future__ import annotations

import os

_BIDI = (0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
_BREAKS = (0x85, 0x2028, 0x2029)

_OBEYED: dict[int, str] = {
    **{code: f"\\x{code:02x}" for code in (*range(0x20), 0x7F)},
    **{code: f"\\u{code:04x}" for code in (*range(0x80, 0xA0), *_BIDI, *_BREAKS)},
    ord("\n"): "\\n",
    ord("\r"): "\\r",
    ord("\t"): "\\t",
}

# The bytes of a name that are not UTF-8, as Python carries them in a str, and other surrogates.
_UNDECODABLE = {code: f"\\x{code - 0xDC00:02x}" for code in range(0xDC80, 0xDD00)}
_SURROGATES = {code: f"\\u{code:04x}" for code in range(0xD800, 0xE000)}

_NAMES = {**_OBEYED, **_SURROGATES, **_UNDECODABLE}
_LINES = {code: text for code, text in _NAMES.items() if code != ord("\n")}

# What a stream lets pass besides: lines, columns, and the bar that is redrawn in its line. Beyond
# ASCII the escapes are JSON's, so that a JSON document stays one.
_STREAM = {
    code: text for code, text in {**_OBEYED, **_SURROGATES}.items() if chr(code) not in "\n\r\t"
}


def shown(text: str | os.PathLike[str]) -> str:
    r"""One line of valid Unicode: control characters and undecodable bytes as ``\x1b``, ``\n``."""
    return os.fspath(text).translate(_NAMES)


def shown_lines(text: str) -> str:
    """`shown` for a text of several lines: a line break stays where an indented line follows.

    Messages indent the lines after the first by two spaces or more; a line break in a file's name
    has no indented text after it.
    """
    lines = text.translate(_LINES).split("\n")
    joined = lines[0]
    for line in lines[1:]:
        joined += ("\n" if line.startswith("  ") else "\\n") + line
    return joined


def harmless(text: str) -> str:
    """What a stream may be given: all but line breaks, returns and tabs is shown."""
    return text.translate(_STREAM)
