"""Which block shape the kernel gets on which GPU: a small cost model, or a measured table.

The model counts, for one output pixel and one tap, what a multiprocessor must issue and move, and
divides by what it can. It knows four things that decide between shapes:

- coordinates, corner weights and addresses (COORDINATE instructions) are worked out once per thread
  and pixel, so many channels per thread are cheap, and threads that share a pixel repeat them;
- channels come in chunks of BLOCK_IN, UNROLL chunks to a step: 48 channels fill three chunks of 16,
  but only three quarters of one of 64;
- accumulators and corner values live in registers, and registers limit the warps in flight; the
  gathers' latency is hidden by ENOUGH_LOADS vector loads in flight, which more warps or a higher
  UNROLL provide;
- a tile's halo is read from L2 again by its neighbours, and its weights once per tile.

The instruction counts were read off the machine code (cuobjdump) of the float16 kernel for sm_80
and sm_90, 48 to 48 channels; the limits of each architecture are those of NVIDIA's CUDA C++
Programming Guide, section "Compute Capabilities". The model orders shapes; its clocks are no
measurement. Where ``measured.json`` beside this file holds a shape for a GPU's architecture and
precision (written on that GPU by ``python -m export.deform_conv.bench --tune``), that is taken
instead. Compiling refuses a shape that spills registers.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edge_restore.storage.files import write_text
from edge_restore.storage.json_fields import JsonFields, is_integer
from edge_restore.storage.json_file import encode, read_json
from edge_restore.storage.plain_file import Kind

MEASURED = Path(__file__).with_name("measured.json")
ARCHITECTURES = (80, 86, 87, 89, 90, 100, 110, 120)
"""Compute capabilities times ten that PTX is compiled for."""

_KIND = Kind(
    "a table of measured block shapes",
    "what `python -m export.deform_conv.bench --tune` writes",
    "remove it, and measure anew on the GPU",
)
_GREATEST = {"tile_height": 256, "tile_width": 256, "block_in": 256, "block_out": 256, "warps": 32}

CHANNELS, OUT_CHANNELS, TAPS_SIDE = 48, 48, 5
"""SVDN's deformable layers; what the model weighs shapes by."""

COORDINATE = 97
"""Instructions per thread, pixel and tap: offsets, sigmoid, floor, corner weights, predicates."""
ELEMENT = {"fp16": 8, "fp32": 4}
"""Per input element: four fused multiply-adds, and four conversions where it is float16."""
VECTOR = {"fp16": 29, "fp32": 21}
"""Per 16-byte vector of elements: four loads, zeroing them, addresses, predicates, packing."""
STEP = 20
"""Per chunk: its way through shared memory, barriers, the weights' loads."""
ENOUGH_WARPS, ENOUGH_LOADS = 12, 128
"""Warps, and 16-byte loads per lane over all warps, that hide a multiprocessor's latencies.
Assumptions, for --tune to overrule."""
MAX_REGISTERS = 128
"""Per thread: two blocks of eight warps, or four of four, then fill a multiprocessor."""
SHARED_LIMIT = 48 * 1024
"""Bytes of shared memory that a launch gets without asking for more; TensorRT does not ask."""


@dataclass(frozen=True)
class Blocks:
    """Compile-time shape of the kernel.

    Attributes:
        tile_height: rows of output pixels in a block; `tile_width` columns. Powers of two.
        block_in: input channels per matrix product, 16 or more.
        unroll: products in one step of the channel loop.
        block_out: output channels per block, a power of two.
        warps: of 32 threads.
    """

    tile_height: int
    tile_width: int
    block_in: int
    unroll: int
    block_out: int
    warps: int

    @property
    def pixels(self) -> int:
        """Output pixels per block."""
        return self.tile_height * self.tile_width

    def constants(self) -> dict[str, int]:
        """The kernel's compile-time arguments, without ALIGN."""
        return {
            "TILE_H": self.tile_height,
            "TILE_W": self.tile_width,
            "BLOCK_IN": self.block_in,
            "UNROLL": self.unroll,
            "BLOCK_OUT": self.block_out,
        }

    def options(self) -> dict[str, Any]:
        """What Triton's compiler is told besides.

        Fused multiply-adds are named because their default changes between its releases; the
        register limit because ptxas, left alone with eight warps, aims at three blocks and spills.
        """
        limit = {"maxnreg": MAX_REGISTERS} if self.warps == 8 else {}
        return {"num_warps": self.warps, "num_stages": 1, "enable_fp_fusion": True, **limit}


@dataclass(frozen=True)
class Limits:
    """One multiprocessor: resident warps, shared memory in bytes; all have 65536 registers."""

    warps: int
    shared: int


LIMITS = {
    80: Limits(64, 164 << 10),
    86: Limits(48, 100 << 10),
    87: Limits(48, 164 << 10),
    89: Limits(48, 100 << 10),
    90: Limits(64, 228 << 10),
    100: Limits(64, 228 << 10),
    110: Limits(48, 228 << 10),  # not looked up; the registers limit residency before these do
    120: Limits(48, 100 << 10),
}


@dataclass(frozen=True)
class Estimate:
    """What the model thinks of a shape.

    Attributes:
        registers: per thread.
        shared: bytes per block.
        warps: resident per multiprocessor.
        clocks: of one multiprocessor per output pixel and tap, the cost.
    """

    registers: int
    shared: int
    warps: int
    clocks: float


_TALL, _LONG = Blocks(8, 16, 16, 3, 64, 8), Blocks(4, 32, 16, 3, 64, 8)
SPILLING = {(arch, "fp16"): (_TALL, _LONG) for arch in (86, 87, 89)}
"""What the model likes and Triton 3.7.1's ptxas cannot fit into MAX_REGISTERS there, by 20 bytes.
Other releases of ptxas, the driver's among them, may decide otherwise, by as little."""


def candidates(precision: str) -> Iterable[Blocks]:
    """The shapes that are weighed, and tried by --tune."""
    half = precision == "fp16"
    tiles = ((8, 8), (8, 16), (4, 32), (16, 16)) if half else ((4, 8), (8, 8), (8, 16))
    chunks = ((16, 1), (16, 3), (32, 1), (32, 2), (64, 1)) if half else ((16, 1), (32, 1))
    for (high, wide), (block_in, unroll), block_out, warps in itertools.product(
        tiles, chunks, (64,) if half else (32, 64), (4, 8)
    ):
        yield Blocks(high, wide, block_in, unroll, block_out, warps)


def estimate(blocks: Blocks, arch: int, precision: str) -> Estimate:
    """The model's numbers for a shape on an architecture, e.g. 86, for the layer above."""
    size = 2 if precision == "fp16" else 4
    vector = 16 // size
    threads = 32 * blocks.warps
    # A thread's vectors of one chunk; where threads are left over, they repeat others' work.
    vectors = max(1.0, blocks.pixels * blocks.block_in / vector / threads)
    pixels = max(1.0, blocks.pixels * min(blocks.block_in / vector, threads) / threads)
    chunks = blocks.unroll * -(-CHANNELS // (blocks.block_in * blocks.unroll))
    out_blocks = -(-OUT_CHANNELS // blocks.block_out)
    instructions = COORDINATE * pixels
    instructions += chunks * (vectors * (vector * ELEMENT[precision] + VECTOR[precision]) + STEP)
    if precision == "fp32":  # no tensor cores: the products are multiply-adds of the same lanes
        instructions += chunks * blocks.block_in * blocks.pixels * blocks.block_out / threads
    issue = instructions * out_blocks * threads / blocks.pixels / 128  # four warps a clock

    tile_halo = (blocks.tile_height + TAPS_SIDE) * (blocks.tile_width + TAPS_SIDE) / TAPS_SIDE**2
    from_l2 = (tile_halo * CHANNELS + OUT_CHANNELS * CHANNELS) * size / blocks.pixels
    memory = from_l2 * out_blocks / 64  # bytes a clock from L2

    accumulators = blocks.pixels * blocks.block_out / threads
    corners = blocks.unroll * vectors * 4 * 4
    registers = int(28 + accumulators + corners + 20 * pixels)
    chunk = (blocks.pixels + blocks.block_out) * blocks.block_in * size
    shared = int(max(chunk, blocks.pixels * blocks.block_out * size))
    resident = min(
        LIMITS[arch].warps // blocks.warps,
        65536 // (max(registers, 32) * threads),
        LIMITS[arch].shared // (shared + 1024),
    )
    warps = resident * blocks.warps
    loads = warps * 4 * vectors * blocks.unroll
    hidden = min(1.0, warps / ENOUGH_WARPS, loads / ENOUGH_LOADS)
    clocks = (issue + memory) / hidden if resident else float("inf")
    return Estimate(registers, shared, warps, clocks)


def best_by_model(arch: int, precision: str) -> Blocks:
    """The candidate with the lowest estimate that fits registers and plain shared memory."""

    def cost(blocks: Blocks) -> float:
        found = estimate(blocks, arch, precision)
        fits = found.registers <= MAX_REGISTERS and found.shared <= SHARED_LIMIT
        spills = blocks in SPILLING.get((arch, precision), ())
        return found.clocks if fits and not spills else float("inf")

    return min(candidates(precision), key=cost)


def choose_blocks(arch: int, precision: str) -> Blocks:
    """The measured shape for this architecture and precision, else the model's."""
    entry = _measured().get(f"sm_{arch}", {}).get(precision)
    return Blocks(**entry["blocks"]) if entry else best_by_model(arch, precision)


def record(arch: int, precision: str, blocks: Blocks, median_ms: float, gpu: str) -> None:
    """Write a measured best shape into ``measured.json``.

    Args:
        median_ms: of one launch at the layer above, 360 rows of 640 pixels.
        gpu: its name, as the driver gives it.
    """
    table = _measured()
    shape = dict(sorted(asdict(blocks).items()))
    entry = {"blocks": shape, "gpu": gpu, "median_ms": median_ms}
    table.setdefault(f"sm_{arch}", {})[precision] = entry
    ordered = {name: dict(sorted(shapes.items())) for name, shapes in sorted(table.items())}
    write_text(MEASURED, encode(ordered, indent=2) + "\n")


def _measured() -> dict[str, dict[str, Any]]:
    if not MEASURED.exists():
        return {}
    document = JsonFields(read_json(MEASURED, _KIND))
    table = {
        arch: {precision: _entry(shapes.child(precision)) for precision in shapes.document}
        for arch in document.document
        for shapes in [document.child(arch)]
    }
    if document.errors:
        raise _KIND.unusable(MEASURED, document.listing())
    return table


def _entry(fields: JsonFields) -> dict[str, Any]:
    """One shape as `record` writes it: powers of two within what a block can be."""
    inner = fields.child("blocks")
    shape = {
        key: inner.take(key, f"a power of two up to {most}", _power_of_two(most), 1)
        for key, most in _GREATEST.items()
    }
    shape["unroll"] = inner.integer("unroll", 1, 64)
    return {
        "blocks": dict(sorted(shape.items())),
        "gpu": fields.text("gpu"),
        "median_ms": fields.number("median_ms", 0),
    }


def _power_of_two(most: int) -> Callable[[Any], bool]:
    return lambda value: is_integer(value) and 1 <= value <= most and value & (value - 1) == 0
