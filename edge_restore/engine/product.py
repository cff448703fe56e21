"""An engine that multiplies two large square matrices, to see what a GPU can do at best."""

from __future__ import annotations

from typing import Any

import numpy as np

from edge_restore.engine import layer_precision
from edge_restore.engine.build_log import BuildLog, make_logger
from edge_restore.engine.flavour import Flavour
from edge_restore.engine.layer_precision import Precisions

PRECISIONS = ("fp32", "fp16", "int8")
"""What it can multiply; "fp32" is TF32 on chips that have it, as in every FP32 engine. The result
is FP16 for 8 bits, which is how the layers of an INT8 engine end."""

INPUTS = ("a", "b")
OUTPUT = "product"


def build(
    library: Flavour, side: int, precision: str, *, target: str | None = None
) -> bytes | None:
    """The serialised engine; None where the library cannot, or where it computes in another type.

    Which type it computes in is read from the build log, where that tells; a strongly typed network
    is believed where it does not.

    Args:
        library: that builds it.
        side: of the matrices.
        precision: one of `PRECISIONS`.
        target: "sm_86" and so on, for a GPU that is not here; None for the one that is.
    """
    trt, log = library.trt, BuildLog()
    if not library.network_flags:  # weakly typed: it would choose for itself
        return None
    logger = make_logger(trt, log)
    builder = trt.Builder(logger)
    definition = builder.create_network(library.network_flags)
    kept = _define(trt, definition, side, precision)
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if target is not None:
        config.num_compute_capabilities = 1
        name = f"SM{target.removeprefix('sm_')}"
        config.set_compute_capability(getattr(trt.ComputeCapability, name), 0)
    blob = builder.build_serialized_network(definition, config)
    del kept
    if blob is None:
        return None
    found = Precisions.of(layer_precision.from_log(log.layers_dump())).matrix
    others = sum(count for kind, count in found.items() if kind != precision)
    return None if others else bytes(blob)


def _define(trt: Any, definition: Any, side: int, precision: str) -> list[Any]:
    """Fill the network; gives the arrays that must live until it is built."""
    types = {"fp32": trt.DataType.FLOAT, "fp16": trt.DataType.HALF, "int8": trt.DataType.INT8}
    factors = [definition.add_input(name, types[precision], (side, side)) for name in INPUTS]
    scale = np.array(0.01, np.float16)
    if precision == "int8":
        constant = definition.add_constant((), trt.Weights(scale)).get_output(0)
        factors = [
            definition.add_dequantize(factor, constant, trt.DataType.HALF).get_output(0)
            for factor in factors
        ]
    plain = trt.MatrixOperation.NONE
    product = definition.add_matrix_multiply(factors[0], plain, factors[1], plain).get_output(0)
    product.name = OUTPUT
    definition.mark_output(product)
    return [scale]
