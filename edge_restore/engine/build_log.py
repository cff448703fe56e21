"""What the builder says while it builds: kept whole, hashed, and read for errors."""

from __future__ import annotations

import hashlib
import re
from typing import Any, TextIO


class BuildLog:
    """The builder's messages in order, each as (severity, text).

    Severities are the library's, in lower case: "verbose", "info", "warning", "error",
    "internal_error".

    Args:
        echo: where each message is shown as it comes; None for nowhere.
    """

    def __init__(self, echo: TextIO | None = None) -> None:
        self.messages: list[tuple[str, str]] = []
        self._echo = echo

    def add(self, severity: str, text: str) -> None:
        """Keep one message."""
        self.messages.append((severity, text))
        if self._echo is not None:
            self._echo.write(f"[{severity}] {text}\n")

    @property
    def text(self) -> str:
        """All of it, one message a line or more."""
        return "".join(f"[{severity}] {text}\n" for severity, text in self.messages)

    @property
    def sha256(self) -> str:
        """Of the text. Two builds have two digests: the log holds times."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    def errors(self) -> list[str]:
        """The first line of each error, without repetitions and without what CUDA adds where
        there is no GPU."""
        lines = [text.strip().splitlines()[0] for s, text in self.messages if "error" in s and text]
        return [line for line in dict.fromkeys(lines) if "catchCudaError" not in line]

    def layers_dump(self) -> str:
        """The built engine's layers with their tensors, as the builder prints them when the
        profiling verbosity is DETAILED; empty when this library does not."""
        dumps = [text for _, text in self.messages if text.startswith("Layers:")]
        return dumps[-1] if dumps else ""

    def scratch_bytes(self) -> int | None:
        """The memory for activations that the engine will ask for, where the builder says it."""
        found = re.findall(r"Max Scratch Memory: (\d+) bytes", self.text)
        return int(found[-1]) if found else None


def make_logger(trt: Any, log: BuildLog) -> Any:
    """An ILogger of the library `trt` that writes into `log`. Keep it as long as the builder."""

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            log.add(severity.name.lower(), message)

    return Logger()
