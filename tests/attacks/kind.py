"""What a kind of input is made of: sound files, attacks on them, and a judge of what came out.

A judge is asked where a command took what it was fed (exit code 0) and said nothing. It compares
with what the sound input gave. "Silently wrong" is what a careful user would call so: the result
differs, and the input itself shows that it is not whole or not possible. What no format could tell
(another picture in a valid file, another title) is no fault; each kind's docstring draws its line.
"""

from __future__ import annotations

import abc
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from tests.attacks.sandbox import Sandbox

PROGRAMS = {
    "edge-restore": "edge_restore",
    "train": "train",
    "calibration": "calibration",
    "export": "export",
    "load-engine": "tests.attacks.load_engine",
}
"""The modules behind the commands, run as ``python -m MODULE`` does."""

EQUAL, MESSAGE, WARNED, CHANGED = "equal", "message", "warned", "changed"
GOOD = (MESSAGE, WARNED, EQUAL, CHANGED)
"""What may come of a case. CHANGED: another result, of which no format could tell."""

TRACEBACK, HANG, CRASH, SILENT, UNCLEAN = "traceback", "hang", "crash", "silent", "unclean"
FAULTS = (TRACEBACK, HANG, CRASH, SILENT, UNCLEAN)
"""What must not. UNCLEAN: a file of the user's was changed, a temporary one was left, or a
terminal escape was printed."""


@dataclass
class Outcome:
    """How a command ended.

    Attributes:
        code: its exit code; negative for a signal; None where it was ended for taking too long.
        out, err: what it printed.
        work: the folder that it ran in.
    """

    code: int | None
    out: str
    err: str
    work: Path
    seconds: float = 0.0


Verdict = tuple[str, str]
"""One of `GOOD` or `FAULTS`, and why."""


@dataclass
class Attack:
    """One case.

    Attributes:
        program: of `PROGRAMS`.
        arguments: of the command; its working directory is the case's own folder.
        fed: what was done to the input, for people.
        judge: asked after exit code 0 without a warning, in a child process of its own, so that it
            may open what was fed; None where equality is not looked at.
        outputs: files and folders (relative) that the command may write.
        codes: exit codes that the command's help states beside 0 and 2.
        inspect: asked after every documented exit code; a fault or None.
    """

    program: str
    arguments: list[str]
    fed: str
    judge: Callable[[Outcome], Verdict] | None = None
    outputs: tuple[str, ...] = ()
    codes: tuple[int, ...] = ()
    inspect: Callable[[Outcome], Verdict | None] | None = None
    environment: dict[str, str] = field(default_factory=dict)


class Kind(abc.ABC):
    """A kind of input.

    Args:
        corpus: the folder with the sound inputs; nobody writes there after `make`.
    """

    name: ClassVar[str]
    imports: ClassVar[tuple[str, ...]] = ()
    """Imported before the first fork; none of them may start a thread."""

    def __init__(self, corpus: Path) -> None:
        self.corpus = corpus

    @abc.abstractmethod
    def make(self) -> None:
        """Write the sound inputs into the corpus; runs in a child process."""

    def measure(self, sandbox: Sandbox) -> None:  # noqa: B027
        """Find out what the commands make of the sound inputs."""

    @abc.abstractmethod
    def attack(self, rng: random.Random, work: Path) -> Attack:
        """Write a mutated input into the empty folder `work`; what to do with it."""


def must_refuse(what: str) -> Callable[[Outcome], Verdict]:
    """The judge of what can never be right."""
    return lambda _: (SILENT, f"accepted without a word: {what}")
