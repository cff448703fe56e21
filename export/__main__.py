"""The command line of the export room: `python -m export`."""

from __future__ import annotations

from edge_restore.machine import process

if __name__ == "__main__":
    process.guard()  # before the imports that take long

import argparse
import sys

from edge_restore.commands import command_line, frame_size
from edge_restore.commands.option_types import file_path, name
from edge_restore.errors import shown
from edge_restore.models.cards import FORMS, card_path, check_model_output, with_cards
from edge_restore.storage.outputs import check_outputs

EPILOG = """\
examples:
  python -m export svdn --weights runs/svdn.safetensors --out svdn.onnx --form camera
  python -m export svdn --weights runs/svdn.safetensors --out svdn-720p.onnx --size 720x1280
  python -m export svdn --weights runs/svdn.safetensors --out svdn-gs.onnx --deformable GridSample
  python -m export svdn --weights runs/svdn.safetensors --out svdn-plugin-fp16.onnx --form camera \\
      --deformable plugin --precision fp16

Height and width of a fixed size are multiples of the network's own; the runtime pads other frames.
Nothing is written unless ONNX Runtime's output agrees with torch's on three sizes: to 1e-4, or for
FP16 to 60 dB of PSNR.
"""


def parser() -> argparse.ArgumentParser:
    """The argument parser."""
    p = argparse.ArgumentParser(
        prog="python -m export", description="Export a trained network to ONNX, with a card.",
        epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    p.add_argument("network", help="which network, e.g. svdn")
    p.add_argument(
        "--weights", type=file_path, required=True, help="its .safetensors, with the card beside it"
    )
    p.add_argument(
        "--out",
        type=file_path,
        required=True,
        help="the .onnx file to write; its card goes beside it",
    )
    p.add_argument(
        "--form", choices=FORMS, default="float",
        help="float: float32 NCHW in [0, 1], output not clipped; camera: uint8 NHWC in and out "
        "(default: %(default)s)",
    )  # fmt: skip
    p.add_argument(
        "--size", default="dynamic", metavar="HxW", help="or dynamic (default: %(default)s)"
    )
    p.add_argument(
        "--deformable", choices=("DeformConv", "GridSample", "plugin"), default="DeformConv",
        help="how deformable convolutions are written: the standard node; GridSample, for "
        "TensorRT-RTX and old runtimes; our plugin's node, for TensorRT (default: %(default)s)",
    )  # fmt: skip
    p.add_argument(
        "--precision", choices=("fp32", "fp16"), default="fp32",
        help="of the graph; fp16 keeps coordinates, global sums and the output in FP32 "
        "(default: %(default)s)",
    )  # fmt: skip
    p.add_argument("--opset", type=int, default=19, help="ONNX opset (default: %(default)s)")
    p.add_argument(
        "--name", type=name, help="what the card calls the model (default: the network's name)"
    )
    return p


def size(text: str) -> tuple[int, int] | None:
    """(height, width) in "HxW", None for "dynamic".

    Raises:
        OptionError: neither.
    """
    return None if text == "dynamic" else frame_size.parse(text)


def main(arguments: list[str] | None = None) -> int:
    """Export one network; 0 on success, 2 with a message when the input cannot be used."""
    arguments = sys.argv[1:] if arguments is None else arguments
    args = parser().parse_args(arguments)
    command = command_line.kept("python -m export", arguments)
    return process.run(
        "export",
        lambda: _export(args, command),
        kept="nothing was written",
        extras="train,export",
    )


def _export(args: argparse.Namespace, command: str) -> None:
    fixed = size(args.size)
    check_model_output(args.out)
    check_outputs(
        [("--out", args.out), ("the card of --out", card_path(args.out))],
        with_cards("--weights", [args.weights]),
    )
    from export import exporter

    options = exporter.Options(args.form, fixed, args.deformable, args.opset, args.precision)
    card, reach = exporter.export(
        args.network, args.weights, args.out, options,
        name=args.network if args.name is None else args.name, command=command,
    )  # fmt: skip
    for found in card.parity:
        print(
            f"{found.height}x{found.width}: ONNX Runtime and torch differ by "
            f"{found.max_abs_difference:.1e}"
            + ("" if found.psnr is None else f", PSNR {found.psnr:.1f} dB")
        )
    if card.precision == "fp16":
        print(f"FP16, with {len(card.fp32_islands)} nodes in FP32")
    if card.deformable != "none":
        print(f"offsets of the deformable convolutions reached {reach:.1f} pixels")
    size_mib = args.out.stat().st_size / 2**20
    print(f"{shown(args.out)}: {size_mib:.1f} MiB, card {shown(card_path(args.out).name)}")


if __name__ == "__main__":
    process.finish(main)
