"""Which GPUs an engine is built for: compute capabilities, written like sm_86."""

from __future__ import annotations

import re
from collections.abc import Sequence

from edge_restore.engine.flavour import Flavour
from edge_restore.engine.gpu import Gpu
from edge_restore.errors import BackendError, OptionError


def known(flavour: Flavour) -> tuple[str, ...]:
    """The targets that the flavour can build for without having them, oldest first."""
    if not flavour.chooses_targets:
        return ()
    names = [n for n in flavour.trt.ComputeCapability.__members__ if re.fullmatch(r"SM\d+", n)]
    return tuple(f"sm_{n[2:]}" for n in sorted(names, key=lambda n: int(n[2:])))


def resolve(flavour: Flavour, wanted: Sequence[str], gpu: Gpu | None) -> tuple[str, ...]:
    """The targets to build for, sorted, each once.

    Without `wanted`: the GPU that is here; without one, everything that the flavour knows.

    Raises:
        OptionError: a target that the flavour does not know.
        BackendError: the flavour builds only for the GPU that is here, and there is none.
    """
    names = known(flavour)
    if not names and gpu is None:
        raise BackendError(
            f"{flavour.title} builds for the GPU of its own machine, and there is none here",
            expected="an NVIDIA GPU with its driver",
            hint="build on the machine that will run the engine; or use --flavour rtx, which "
            "builds anywhere for RTX GPUs",
        )
    own = (gpu.target,) if gpu is not None else ()
    possible = names or own
    if unknown := [target for target in wanted if target not in possible]:
        raise OptionError(
            f"{flavour.title} {flavour.version} does not know the target '{unknown[0]}'",
            expected=f"one of {', '.join(possible)}",
            hint="leave --target out to build for "
            + ("the GPU that is here" if gpu else "all of them")
            + ("; for other GPUs, build on a machine that has one" if not names else ""),
        )
    if wanted:
        return tuple(sorted(set(wanted), key=_number))
    return tuple(target for target in own if target in possible) or names


def _number(target: str) -> int:
    return int(target.removeprefix("sm_"))
