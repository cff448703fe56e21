"""The kernel's command line: `python -m export.deform_conv`."""

from __future__ import annotations

from edge_restore.commands.option_types import any_path, file_path
from edge_restore.machine import process

if __name__ == "__main__":
    process.guard()  # before the imports that take long

import argparse
from pathlib import Path

EPILOG = """\
examples:
  python -m export.deform_conv compile --out edge_restore/engine/plugin/ptx
  python -m export.deform_conv blocks
  python -m export.deform_conv vectors --out tests/gpu/deform_conv_vectors.zip
  python -m export.deform_conv.bench --out bench.json      (on a machine with an NVIDIA GPU)
"""


def parser() -> argparse.ArgumentParser:
    """The argument parser."""
    p = argparse.ArgumentParser(
        prog="python -m export.deform_conv",
        description="Compile the deformable-convolution kernel; none of this needs a GPU.",
        epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    commands = p.add_subparsers(dest="command", required=True)
    compile_ = commands.add_parser("compile", help="write PTX for every architecture, and an index")
    compile_.add_argument("--out", type=any_path, required=True, help="the folder to write to")
    commands.add_parser("blocks", help="show the chosen block shapes and the model's estimates")
    vectors = commands.add_parser("vectors", help="write inputs and the interpreter's outputs")
    vectors.add_argument(
        "--out", type=file_path, required=True, help="the file to write, a zip of .npy files"
    )
    return p


def _compile(out: Path) -> None:
    from export.deform_conv.compiler import write_all

    for one in write_all(out):
        print(
            f"{one.file}: {one.target}, {one.registers} registers, {one.shared} bytes shared, "
            f"{len(one.text) / 1024:.0f} KiB"
        )


def _blocks() -> None:
    from export.deform_conv.blocks import ARCHITECTURES, choose_blocks, estimate

    print("arch    prec  tile   in  out warps | model: regs warps/SM clocks per pixel and tap")
    for arch in ARCHITECTURES:
        for precision in ("fp16", "fp32"):
            b = choose_blocks(arch, precision)
            e = estimate(b, arch, precision)
            print(
                f"sm_{arch:<4} {precision} {b.tile_height:>2}x{b.tile_width:<2} "
                f"{b.unroll}x{b.block_in} {b.block_out:>4} {b.warps:>5} |        "
                f"{e.registers:>4} {e.warps:>8} {e.clocks:>6.1f}"
            )


def main(arguments: list[str] | None = None) -> int:
    """Run one command; 0 on success, 2 with a message when it cannot be done here."""
    args = parser().parse_args(arguments)
    return process.run(
        "deform_conv",
        lambda: _run(args),
        kept="no half-written file was left",
        extras="train,export",
    )


def _run(args: argparse.Namespace) -> None:
    if args.command == "compile":
        _compile(args.out)
    elif args.command == "blocks":
        _blocks()
    else:
        from export.deform_conv.vectors import write

        write(args.out)


if __name__ == "__main__":
    process.finish(main)
