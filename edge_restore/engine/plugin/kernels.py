"""The shipped GPU kernels: PTX files beside this module, found and checked through their index.

``ptx/index.json`` says for every file what it was compiled for and how it is launched. It is
written by ``python -m export.deform_conv compile``, whose `kernel.py` holds the formula, and read
here; neither Triton nor a GPU is needed to read it.

A launch passes, in this order: the five input pointers, the int32 scalars that `Geometry.scalars`
gives, the output pointer. Triton's two hidden scratch pointers are unused and are no longer
parameters of the shipped entry. Every pointer is aligned to 16 bytes (TensorRT's and CUDA's
allocations are, to 256).

``pytest -m gpu tests/gpu`` launches every file that fits the GPU it finds; run so on an H100.
"""

from __future__ import annotations

import functools
import hashlib
import re
from dataclasses import astuple, dataclass
from pathlib import Path

from edge_restore.errors import BackendError
from edge_restore.storage.json_fields import JsonFields
from edge_restore.storage.json_file import read_json
from edge_restore.storage.plain_file import Kind, read_plain

SCHEMA = "edge_restore.kernel_index/1"
PRECISIONS = ("fp16", "fp32")
MASK_ABSENT, MASK_PLAIN, MASK_LOGIT = 0, 1, 2
"""What stands in `ow` after the offsets: nothing (all ones), the masks, or logits of them."""
OLDEST = (8, 0)
"""Compute capability of the oldest GPU that the kernels run on (Ampere)."""

_FOLDER = Path(__file__).with_name("ptx")
_LARGEST_INDEX = 1 << 20
_LARGEST_KERNEL = 16 << 20
_INT32 = 2**31
_GRID_YZ = 65535  # CUDA's limit for the grid's second and third dimension


@dataclass(frozen=True)
class Geometry:
    """Sizes of one deformable layer; the fields are the kernel's scalars, in launch order.

    All pixel strides are in elements. TensorRT's HWC8 pads the channels of a pixel to a multiple
    of 8, so 75 channels of `ow` have `ow_stride` 80; for plain NHWC, stride and channels are the
    same. Images of a batch follow each other without a gap: height*width*stride elements.

    Attributes:
        height: of the input image in pixels, as `width`.
        channels: of the input image.
        out_height: of the output and of `ow`, as `out_width`.
        out_channels: of the output.
        image_stride: from one pixel of the image to the next; as `ow_stride` and `out_stride`.
        out_written: channels stored per output pixel: `out_channels`, or more where the output's
            padding is to be zeroed.
        pad_y: rows of zeros before the first; as `pad_x`.
        offset_groups: channel groups with their own offsets.
        mask_mode: MASK_ABSENT, MASK_PLAIN or MASK_LOGIT.
    """

    height: int
    width: int
    channels: int
    out_height: int
    out_width: int
    out_channels: int
    image_stride: int
    ow_stride: int
    out_stride: int
    out_written: int
    kernel_h: int
    kernel_w: int
    stride_y: int
    stride_x: int
    pad_y: int
    pad_x: int
    dilation_y: int
    dilation_x: int
    offset_groups: int
    mask_mode: int

    def scalars(self) -> tuple[int, ...]:
        """The kernel's int32 arguments, in order.

        Raises:
            BackendError: sizes that contradict each other or that int32 indices cannot reach.
        """
        if problem := self._problem():
            raise BackendError(
                f"a deformable convolution with {problem} cannot be launched",
                expected="sizes that fit together, each image below 2**31 pixels",
                hint="check the layer's sizes against those that `Geometry` documents",
            )
        return astuple(self)

    def alignment(self, precision: str) -> int:
        """The `alignment` of the fastest kernel that this layer may use: 8 or 4, else 1."""
        vector = 16 // (2 if precision == "fp16" else 4)
        counts = (
            self.channels // self.offset_groups, self.image_stride, self.out_channels,
            self.out_stride, self.out_written,
        )  # fmt: skip
        return 1 if any(count % vector for count in counts) else vector

    def _problem(self) -> str:
        taps = self.kernel_h * self.kernel_w * self.offset_groups
        wanted = taps * (2 if self.mask_mode == MASK_ABSENT else 3)
        positive = {**vars(self), "pad_y": 1, "pad_x": 1, "mask_mode": 1}
        if bad := [name for name, value in positive.items() if value < 1]:
            return f"{bad[0]} {getattr(self, bad[0])}"
        if self.mask_mode not in (MASK_ABSENT, MASK_PLAIN, MASK_LOGIT):
            return f"mask_mode {self.mask_mode}"
        if self.channels % self.offset_groups:
            return f"{self.channels} channels in {self.offset_groups} offset groups"
        if self.ow_stride < wanted:
            return f"{self.ow_stride} offset channels where {wanted} are read"
        if self.image_stride < self.channels:
            return f"image_stride {self.image_stride} for {self.channels} channels"
        if not self.out_channels <= self.out_written <= self.out_stride:
            return f"{self.out_written} channels written of {self.out_channels}"
        far = 2**22  # with it, no coordinate of the kernel leaves int32 (offsets stop at 2**24)
        reach = (
            abs(self.pad_y), abs(self.pad_x), self.height, self.width,
            self.out_height * self.stride_y, self.out_width * self.stride_x,
            self.kernel_h * self.dilation_y, self.kernel_w * self.dilation_x,
        )  # fmt: skip
        if max(reach) >= far:
            return f"a side or distance of {max(reach)} pixels"
        products = (
            self.height * self.width, self.out_height * self.out_width,
            self.width * self.image_stride,
            self.kernel_h * self.kernel_w * self.channels * self.out_channels,
        )  # fmt: skip
        return "more than 2**31 pixels or weights" if max(products) >= _INT32 else ""


@dataclass(frozen=True)
class Argument:
    """One parameter of a kernel: its name and "*fp16", "*fp32" (pointers) or "i32"."""

    name: str
    type: str


@dataclass(frozen=True)
class Kernel:
    """One PTX file and how it is launched.

    Attributes:
        file: its plain name in `folder`; `sha256` is its hash.
        entry: the name of the function in it.
        arch: what it was compiled for, "sm_86".
        target: PTX's own target; one that ends in "a" runs on that very architecture only.
        ptx_version: PTX ISA version times ten; 85 needs a driver of CUDA 12.5 or newer.
        precision: of image, offsets, weight and output, "fp16" or "fp32".
        alignment: strides and channel counts must be multiples of it, see `Geometry.alignment`.
        tile_height: rows of output pixels per block, and `tile_width` columns; `block_pixels` is
            their product.
        block_in: input channels of one matrix product.
        block_out: output channels per block.
        warps: of 32 threads per block.
        shared_bytes: dynamic shared memory per block, below the 48 KB that need no opt-in.
        registers: per thread; 0 where the assembler has not said.
        arguments: in launch order.
    """

    file: str
    sha256: str
    entry: str
    arch: str
    target: str
    ptx_version: int
    precision: str
    alignment: int
    tile_height: int
    tile_width: int
    block_pixels: int
    block_in: int
    block_out: int
    warps: int
    shared_bytes: int
    registers: int
    arguments: tuple[Argument, ...]
    folder: Path

    @property
    def capability(self) -> tuple[int, int]:
        """The compute capability it was compiled for: (8, 6) for "sm_86"."""
        number = int(self.arch.removeprefix("sm_"))
        return number // 10, number % 10

    @property
    def threads(self) -> int:
        """Threads per block, all along x."""
        return 32 * self.warps

    @property
    def ptx(self) -> bytes:
        """The file's content, checked against its hash; without a trailing zero byte.

        Raises:
            BackendError: the file is missing or is not the one that the index describes.
        """
        path = self.folder / self.file
        content = read_plain(path, _kind("the kernel"), _LARGEST_KERNEL)
        digest = hashlib.sha256(content).hexdigest()
        if digest != self.sha256:
            raise _broken(f"the kernel '{path}' does not match its index: its SHA-256 is {digest}")
        return content

    def runs_on(self, capability: tuple[int, int]) -> bool:
        """Whether a GPU of this compute capability takes the kernel's PTX and is served well by it.

        PTX for a whole architecture runs on every later GPU; only sm_80's, which is what a GPU of
        an unknown generation falls back to, is used outside its own generation.
        """
        if self.target.endswith("a"):  # arch-specific instructions: no other GPU takes them
            return self.capability == capability
        same_generation = self.capability[0] == capability[0] and self.capability <= capability
        return same_generation or self.capability == OLDEST <= capability

    def grid(self, n: int, out_h: int, out_w: int, cout: int) -> tuple[int, int, int]:
        """Blocks along x, y and z for `n` images of `out_h` x `out_w` pixels, `cout` channels.

        Where `Geometry.out_written` is more than the channels, `cout` is `out_written`.
        """
        return grid(n, out_h, out_w, cout, self.tile_height, self.tile_width, self.block_out)


@dataclass(frozen=True)
class KernelIndex:
    """What ``index.json`` says.

    Attributes:
        source_sha256: of the kernel's Python source.
        triton: version of the Triton that compiled it.
        kernels: one for each file.
    """

    source_sha256: str
    triton: str
    kernels: tuple[Kernel, ...]


def grid(
    n: int, out_h: int, out_w: int, cout: int, tile_height: int, tile_width: int, block_out: int
) -> tuple[int, int, int]:
    """Blocks of a launch: tiles of pixels, row by row, along x; channels along y; images along z.

    Raises:
        BackendError: more blocks than CUDA takes.
    """
    tiles = -(-out_h // tile_height) * -(-out_w // tile_width)
    blocks = tiles, -(-cout // block_out), n
    if min(blocks) < 1 or tiles >= _INT32 or max(blocks[1:]) > _GRID_YZ:
        raise BackendError(
            f"{n} images of {out_h}x{out_w} pixels and {cout} channels need {blocks} blocks",
            expected=f"at least one, and at most {_GRID_YZ} images",
            hint="run the layer on fewer images at a time",
        )
    return blocks


def load_index(folder: str | Path | None = None) -> KernelIndex:
    """The index of the shipped kernels, or of those in `folder`.

    Raises:
        BackendError: it is missing or malformed; everything that is wrong is listed.
    """
    return _read_index(_FOLDER if folder is None else Path(folder))


def choose(
    compute_capability: tuple[int, int],
    precision: str,
    alignment: int | None = None,
    *,
    index: KernelIndex | None = None,
) -> Kernel:
    """The kernel for a GPU: compiled for it, else for an older one of its generation, else sm_80's.

    Args:
        compute_capability: of the GPU, e.g. (8, 7).
        precision: "fp16" or "fp32".
        alignment: what `Geometry.alignment` says for the layer; None is the aligned kernel, for
            layers whose channel counts are multiples of 8. Only sm_80's PTX, which every newer
            driver compiles, is shipped for alignment 1.

    Raises:
        BackendError: the GPU is older than Ampere, or the precision has no kernel.
    """
    if precision not in PRECISIONS:
        raise BackendError(
            f"there is no deformable-convolution kernel for precision '{precision}'",
            expected=" or ".join(PRECISIONS),
            hint="build the engine with --precision fp16 or fp32",
        )
    name = "sm_{}{}".format(*compute_capability)
    if compute_capability < OLDEST:
        raise BackendError(
            f"this GPU is {name}, too old for the deformable-convolution kernel",
            expected="an NVIDIA GPU of compute capability 8.0 (Ampere) or newer",
            hint="use the plugin-free form: python -m export ... --deformable GridSample",
        )
    aligned = alignment != 1
    fitting = [
        kernel
        for kernel in (index or load_index()).kernels
        if kernel.precision == precision
        and (kernel.alignment > 1) == aligned
        and kernel.runs_on(compute_capability)
    ]
    if not fitting:
        raise _broken(f"the index holds no {precision} kernel that {name} could run")
    return max(fitting, key=lambda kernel: kernel.capability)


@functools.lru_cache(maxsize=4)
def _read_index(folder: Path) -> KernelIndex:
    path = folder / "index.json"
    fields = JsonFields(read_json(path, _kind("the kernel index"), _LARGEST_INDEX))
    fields.choice("schema", (SCHEMA,))
    index = KernelIndex(
        source_sha256=fields.digest("source_sha256"),
        triton=fields.text("triton"),
        kernels=fields.sequence("kernels", lambda kernel: _read_kernel(kernel, folder)),
    )
    if fields.errors:
        raise _broken(f"the kernel index '{path}' cannot be used:{fields.listing()}")
    return index


def _read_kernel(fields: JsonFields, folder: Path) -> Kernel:
    arch = fields.take("arch", '"sm_" and a number', _is_arch, "sm_80")
    sizes = ("tile_height", "tile_width", "block_pixels", "block_in", "block_out")
    kernel = Kernel(
        file=fields.file_name("file"),
        sha256=fields.digest("sha256"),
        entry=fields.text("entry"),
        arch=arch,
        target=fields.choice("target", (arch, f"{arch}a")),
        ptx_version=fields.integer("ptx_version", 70, 1000),
        precision=fields.choice("precision", PRECISIONS),
        alignment=fields.integer("alignment", 1, 16),
        shared_bytes=fields.integer("shared_bytes", 0, 1 << 20),
        registers=fields.integer("registers", 0, 1 << 16),
        arguments=fields.sequence("arguments", _read_argument),
        folder=folder,
        warps=fields.integer("warps", 1, 32),
        **{size: fields.integer(size, 1, 1 << 20) for size in sizes},
    )
    if kernel.block_pixels != kernel.tile_height * kernel.tile_width:
        fields.errors.append(f"{kernel.file}: block_pixels is not tile_height * tile_width")
    return kernel


def _read_argument(fields: JsonFields) -> Argument:
    return Argument(fields.text("name"), fields.choice("type", ("*fp16", "*fp32", "i32")))


def _is_arch(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch("sm_[0-9]{2,3}", value) is not None


def _broken(found: str) -> BackendError:
    kind = _kind("")
    return BackendError(found, expected=kind.expected, hint=kind.hint)


def _kind(what: str) -> Kind:
    return Kind(
        what,
        expected="the kernels as they were shipped",
        hint="install edge-restore again; in a checkout, write them anew with "
        "`python -m export.deform_conv compile --out edge_restore/engine/plugin/ptx`",
        error=BackendError,
    )
