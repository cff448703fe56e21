"""Compiling the kernel ahead of time to PTX, for GPUs that need not be here, and its index.

Every architecture gets an aligned kernel per precision; sm_80 also gets a general one, without
alignment, which every newer GPU's driver can compile too (odd channel counts are for correctness,
not for speed). PTX and no cubin is shipped: the driver, or TensorRT when it builds the engine,
assembles it once and caches the result.

What Triton emits is changed in three ways, each checked by assembling the result with the `ptxas`
that Triton brings:

- the two hidden trailing parameters (scratch pointers) are taken away; nothing reads them;
- comments and a leftover string of LLVM's are dropped;
- the target sm_120a becomes sm_120 where no instruction needs the "a", so that 12.1 can run it.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from edge_restore.engine.plugin.kernels import SCHEMA, Argument
from edge_restore.errors import InternalError, UserError
from edge_restore.storage.files import make_folder, write_text
from edge_restore.storage.json_file import encode, read_json
from edge_restore.storage.outputs import check_outputs
from edge_restore.storage.plain_file import Kind
from edge_restore.storage.temporaries import temporary
from export.deform_conv import kernel
from export.deform_conv.blocks import ARCHITECTURES, SHARED_LIMIT, Blocks, choose_blocks
from export.deform_conv.launch import compiled

_INDEX = Kind("the index", "the index of a folder of ours", "remove it")

ENTRY = "deform_conv"
ALIGNMENT = {"fp16": 8, "fp32": 4}
GENERAL = Blocks(8, 8, 16, 1, 32, 8)
"""The general kernel's shape: its scalar loads need registers for addresses."""
PTX_VERSIONS = {100: 86, 110: 90, 120: 87}
"""PTX ISA version times ten, the lowest that names the architecture; 85 (CUDA 12.5, so JetPack 6's
12.6 takes it) for all the older ones."""


@dataclass(frozen=True)
class Compiled:
    """PTX text ready to ship, and what a launch must know of it."""

    arch: int
    precision: str
    alignment: int
    blocks: Blocks
    text: str
    target: str
    shared: int
    registers: int

    @property
    def file(self) -> str:
        """Its name among the shipped files."""
        general = "" if self.alignment > 1 else "_general"
        return f"{ENTRY}_sm_{self.arch}_{self.precision}{general}.ptx"


def jobs() -> list[tuple[int, str, int]]:
    """(architecture, precision, alignment) of every file that is shipped."""
    aligned = [(arch, precision, ALIGNMENT[precision])
               for arch in ARCHITECTURES for precision in ALIGNMENT]  # fmt: skip
    return aligned + [(ARCHITECTURES[0], precision, 1) for precision in ALIGNMENT]


def arguments(precision: str) -> list[Argument]:
    """The kernel's parameters in launch order: inputs, scalars, output."""
    pointer = f"*{precision}"
    types = {"bias": "*fp32", "slope": "*fp32"}
    inputs = [Argument(name, types.get(name, pointer)) for name in kernel.POINTERS]
    scalars = [Argument(name, "i32") for name in kernel.SCALARS]
    return [*inputs, *scalars, Argument("out", pointer)]


def compile_kernel(
    arch: int, precision: str, alignment: int, blocks: Blocks | None = None
) -> Compiled:
    """PTX of the kernel for one architecture; needs no GPU.

    Args:
        arch: compute capability times ten, 86.
        precision: "fp16" or "fp32".
        alignment: in elements, see `edge_restore.engine.plugin.kernels.Geometry.alignment`.
        blocks: the shape; by default what `choose_blocks` says, or GENERAL for alignment 1.

    Raises:
        InternalError: the result spills registers, needs more shared memory than a plain launch
            has, or is not what we expect of Triton's output.
    """
    if blocks is None:
        blocks = choose_blocks(arch, precision) if alignment > 1 else GENERAL
    parameters = arguments(precision)
    constants = {**blocks.constants(), "ALIGN": alignment}
    signature = {a.name: a.type for a in parameters} | dict.fromkeys(constants, "constexpr")
    aligned = {(i,): [["tt.divisibility", 16]] for i, a in enumerate(parameters) if a.type != "i32"}
    source = ASTSource(compiled(), signature, constexprs=constants, attrs=aligned)
    options = {**blocks.options(), "ptx_version": PTX_VERSIONS.get(arch, 85)}
    with triton.knobs.compilation.scope():
        triton.knobs.compilation.disable_line_info = True  # it would name paths of this machine
        triton.knobs.compilation.always_compile = True
        result = triton.compile(source, target=GPUTarget("cuda", arch, 32), options=options)
    if result.metadata.num_warps != blocks.warps or result.metadata.name != ENTRY:
        raise InternalError(f"Triton compiled something else: {result.metadata}")
    text = strip_comments(strip_hidden(result.asm["ptx"], len(parameters)))
    text, report = _portable(text, arch)
    spilled = [int(n) for n in re.findall(r"(\d+) bytes spill", report)]
    if any(spilled) or not spilled:
        raise InternalError(f"{blocks} spills registers on sm_{arch}, {precision}: {report}")
    if result.metadata.shared > SHARED_LIMIT:
        raise InternalError(f"{blocks} needs {result.metadata.shared} bytes of shared memory")
    return Compiled(
        arch, precision, alignment, blocks, text, _target(text), result.metadata.shared,
        int(re.findall(r"Used (\d+) registers", report)[0]),
    )  # fmt: skip


def write_all(folder: Path) -> list[Compiled]:
    """Compile every job into `folder`, index last, and remove what only the former index names.

    Raises:
        SinkError: the folder cannot be written.
        InternalError: see `compile_kernel`.
    """
    make_folder(folder)
    check_outputs([("the index", folder / "index.json")])
    before = _listed(folder / "index.json")
    everything = [compile_kernel(*job) for job in jobs()]
    for one in everything:
        write_text(folder / one.file, one.text)
    document = {
        "schema": SCHEMA,
        "source_sha256": source_sha256(),
        "triton": triton.__version__,
        "kernels": [entry(one) for one in everything],
    }
    write_text(folder / "index.json", encode(document, indent=1) + "\n")
    for stale in before - {one.file for one in everything}:
        (folder / stale).unlink(missing_ok=True)
    return everything


def entry(one: Compiled) -> dict[str, Any]:
    """The kernel's object in the index, see `edge_restore.engine.plugin.kernels.Kernel`."""
    version = re.findall(r"^\.version (\d+)\.(\d+)$", one.text, re.MULTILINE)[0]
    return {
        "file": one.file,
        "sha256": hashlib.sha256(one.text.encode()).hexdigest(),
        "entry": ENTRY,
        "arch": f"sm_{one.arch}",
        "target": one.target,
        "ptx_version": int("".join(version)),
        "precision": one.precision,
        "alignment": one.alignment,
        "tile_height": one.blocks.tile_height,
        "tile_width": one.blocks.tile_width,
        "block_pixels": one.blocks.pixels,
        "block_in": one.blocks.block_in,
        "block_out": one.blocks.block_out,
        "warps": one.blocks.warps,
        "shared_bytes": one.shared,
        "registers": one.registers,
        "arguments": [asdict(argument) for argument in arguments(one.precision)],
    }


def source_sha256() -> str:
    """Of the kernel's source file; a PTX folder with another one in its index is stale."""
    return hashlib.sha256(Path(kernel.__file__).read_bytes()).hexdigest()


def strip_hidden(ptx: str, parameters: int) -> str:
    """PTX whose entry has only the first `parameters` parameters.

    Raises:
        InternalError: a parameter that would go is used, or the entry does not look as expected.
    """
    head, opened, rest = ptx.partition(f".entry {ENTRY}(\n")
    listed, closed, body = rest.partition("\n)")
    declared = listed.split(",\n")
    if not opened or not closed or len(declared) < parameters:
        raise InternalError(f"the PTX has no entry {ENTRY} of {parameters} parameters or more")
    for number in range(parameters, len(declared)):
        if re.search(rf"{ENTRY}_param_{number}\b", body):
            raise InternalError(f"the PTX uses its hidden parameter {number}")
    return head + opened + ",\n".join(declared[:parameters]) + closed + body


def strip_comments(ptx: str) -> str:
    """PTX without comments, blank lines, and the string that LLVM's target lookup leaves behind."""
    lines = (line.split("//")[0].rstrip() for line in ptx.splitlines())
    kept = [line for line in lines if line and "__nvvm_reflect" not in line]
    kept = [line for line in kept if not re.match(r"\.global \.align 1 \.b8 _\$_str\[", line)]
    return "\n".join(kept) + "\n"


def assemble(ptx: str, arch: str) -> tuple[int, str]:
    """The exit status and report of `ptxas -v` for a text, assembled for `arch` ("sm_90a")."""
    tools = triton.knobs.nvidia
    newer = int(re.findall(r"\d+", arch)[0]) >= 100 and hasattr(tools, "ptxas_blackwell")
    tool = tools.ptxas_blackwell if newer else tools.ptxas
    with tempfile.TemporaryDirectory() as folder, temporary(folder):
        source = Path(folder) / "kernel.ptx"
        source.write_text(ptx)
        command = [tool.path, "-v", f"--gpu-name={arch}", source, "-o", source.with_suffix(".o")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def _listed(index: Path) -> set[str]:
    """The files that an earlier index of ours names; other PTX in the folder is somebody else's."""
    try:
        document = read_json(index, _INDEX)
        if document["schema"] != SCHEMA:
            return set()
        names = {Path(kernel["file"]).name for kernel in document["kernels"]}
        return {name for name in names if name.endswith(".ptx") and "\0" not in name}
    except (UserError, LookupError, TypeError):
        return set()


def _portable(ptx: str, arch: int) -> tuple[str, str]:
    """PTX for plain sm_`arch` if it assembles as that, else as it came; and ptxas' report."""
    plain = re.sub(r"^\.target sm_\d+a$", f".target sm_{arch}", ptx, flags=re.MULTILINE)
    for text in dict.fromkeys((plain, ptx)):
        status, report = assemble(text, _target(text))
        if status == 0:
            return text, report
    raise InternalError(f"ptxas refuses the kernel for sm_{arch}: {report}")


def _target(ptx: str) -> str:
    return str(re.findall(r"^\.target (\w+)", ptx, re.MULTILINE)[0])
