"""A command line as a card or a manifest keeps it: without this machine's folders."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Sequence
from pathlib import PurePath

from edge_restore.errors import shown


def kept(program: str, arguments: Sequence[str], *, verbatim: Collection[str] = ()) -> str:
    """`program` and its arguments, where every path is the name of its file alone.

    Args:
        verbatim: options whose values are no paths though they may hold slashes.
    """
    words, option = [], ""
    for word in arguments:
        value = word
        if word.startswith("--"):
            option, equals, value = word.partition("=")
            if not equals:
                words.append(word)
                continue
            words.append(f"{option}={value if option in verbatim else _name(value)}")
            continue
        words.append(word if option in verbatim else _name(word))
    return f"{program} {shlex.join(shown(word) for word in words)}".rstrip()


def _name(word: str) -> str:
    if word.startswith("-") and len(word) > 2 and "/" in word:  # -o/tmp/x.engine
        return word[:2] + _name(word[2:])
    return (PurePath(word).name or word) if "/" in word else word
