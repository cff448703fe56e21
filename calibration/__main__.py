"""The command line of the calibration room: `python -m calibration`."""

from __future__ import annotations

from edge_restore.machine import process

if __name__ == "__main__":
    process.guard()  # before the imports that take long

import argparse
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TypeAlias

from edge_restore.commands import command_line, frame_size
from edge_restore.commands.option_types import any_path, file_path, integer, number
from edge_restore.errors import OptionError, shown

METHOD = "mse"
"""Of choosing ranges, unless told otherwise."""

_SENSITIVITY_FILES = ("sensitivity.json", "sensitivity.png", "scales.json")

_Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

EPILOG = """\
from footage to an INT8 model (docs/int8.md):
  python -m calibration collect FOOTAGE.mp4 --out frames.npz
  python -m calibration quantise svdn.onnx --frames frames.npz --out svdn-int8.onnx \\
      --scales-out svdn.scales.json
  python -m calibration check svdn-int8.onnx --reference svdn.onnx --pairs PAIRS
and the form that an engine is built from:
  python -m calibration quantise svdn-plugin-fp16.onnx --scales svdn.scales.json \\
      --out svdn-plugin-int8.onnx
"""


def _collect(args: argparse.Namespace) -> int:
    from calibration.calibration_set import FEWEST
    from calibration.collector import collect
    from edge_restore.media.images import SUFFIXES
    from edge_restore.report import cells
    from edge_restore.storage.outputs import InputFolder, check_outputs

    check_outputs([("--out", args.out)], [("SOURCE", InputFolder(Path(args.source), SUFFIXES))])
    if args.count < FEWEST:
        raise OptionError(
            f"--count is {args.count}",
            expected=f"{FEWEST} or more",
            hint="16 suit most cameras",
        )
    size = frame_size.parse(args.size) if args.size is not None else None
    found = collect(args.source, args.count, size)
    found.chosen.save(args.out)
    rows = [
        (frame.name, *(f"{value:.1f}" for value in frame.statistics.vector()[:3]),
         f"{frame.statistics.blur:.2f}", frame.sha256[:12])
        for frame in found.chosen.frames
    ]  # fmt: skip
    header = ("frame", "brightness", "contrast", "texture", "blur", "SHA-256")
    print(cells.text_table(header, rows))
    height, width = found.chosen.size
    print(f"{len(rows)} of {found.looked_at} frames, {height}x{width}: {shown(args.out)}")
    for warning in found.warnings:
        text = f"calibration: warning: {shown(warning)}; the frames before are used"
        print(text, file=sys.stderr)
    if found.left_out:
        first = [shown(f"{name} ({why})") for name, why in list(found.left_out.items())[:4]]
        more = f" and {len(found.left_out) - 4} more" if len(found.left_out) > 4 else ""
        print(f"left out: {', '.join(first)}{more}")
    return process.UNUSABLE if found.warnings else 0


def _model(name: str) -> Path:
    """The file that a model's name or path means."""
    from edge_restore.models import zoo

    return zoo.find(name)[0]


def _layers(args: argparse.Namespace) -> None:
    from calibration import layers, quantiser
    from edge_restore.report import cells

    model, card = quantiser.load(_model(args.model))
    found = layers.layers(model, card.multiple)
    rows = [
        (layer.name, layer.operator, f"stays: {layer.kept}" if layer.kept else "INT8",
         f"{quantiser.share(found, [layer.name]):.1%}")
        for layer in found
    ]  # fmt: skip
    print(cells.text_table(("layer", "operator", "policy", "MACs"), rows, left=3))
    chosen = [layer.name for layer in found if not layer.kept]
    print(f"INT8: {len(chosen)} layers, {quantiser.share(found, chosen):.1%} of the MACs")


def _quantise(args: argparse.Namespace) -> None:
    from calibration import layers, quantiser, ranges
    from calibration.calibration_set import CalibrationSet
    from calibration.scales import Scales
    from edge_restore.models.cards import card_path, check_model_output, with_cards
    from edge_restore.storage.outputs import check_outputs

    if (args.frames is None) == (args.scales is None):
        raise OptionError(
            "it is not clear where the ranges come from",
            expected="either --frames, a calibration set, or --scales, a scales file",
            hint="see `python -m calibration quantise --help`",
        )
    given = {
        "--only": args.only, "--keep": args.keep, "--float-skips": args.float_skips,
        "--method": args.method != METHOD, "--percentile": args.percentile is not None,
    }  # fmt: skip
    settled = [option for option, value in given.items() if value]
    if args.scales and settled:
        raise OptionError(
            f"{', '.join(settled)} beside --scales, a file in which that is settled",
            expected="options of choosing layers and ranges beside --frames alone",
            hint="leave them out, or give --frames in place of --scales",
        )
    if args.percentile is not None and args.method != "percentile":
        raise OptionError(
            f"--percentile beside --method {args.method}",
            expected="--percentile with the method percentile",
            hint="add --method percentile, or leave --percentile out",
        )
    check_model_output(args.out)
    given_model = _model(args.model)
    check_outputs(
        [
            ("--out", args.out),
            ("the card of --out", card_path(args.out)),
            ("--scales-out", args.scales_out),
        ],
        [
            *with_cards("MODEL", [given_model]),
            ("--frames", args.frames),
            ("--scales", args.scales),
        ],
    )
    model, card = quantiser.load(given_model)
    if args.scales:
        scales = Scales.read(args.scales)
    else:
        frames = CalibrationSet.load(args.frames)
        found = layers.layers(model, card.multiple)
        scales = quantiser.find_scales(
            model, card, frames, method=args.method,
            percentile=ranges.PERCENTILE if args.percentile is None else args.percentile,
            chosen=quantiser.choose(found, args.only, args.keep), skips=not args.float_skips,
        )  # fmt: skip
    written = quantiser.write(model, card, scales, args.out, command=args.command_line)
    if args.scales_out:
        scales.write(args.scales_out)
    assert written.quantisation is not None
    print(
        f"{shown(args.out)}: {len(scales.layers)} INT8 convolutions, "
        f"{scales.macs_share:.1%} of the MACs, the rest {written.quantisation.rest}; "
        f"{(written.onnx.bytes or 0) / 2**20:.1f} MiB"
    )


def _sensitivity(args: argparse.Namespace) -> int:
    from calibration import crops, frontier_plot, quantiser, sensitivity
    from calibration.calibration_set import CalibrationSet
    from edge_restore.evaluation.pairs import as_inputs, find_pairs
    from edge_restore.models.cards import with_cards
    from edge_restore.storage.files import make_folder
    from edge_restore.storage.outputs import check_outputs

    given_model = _model(args.model)
    check_outputs(
        [("--out:", args.out / name) for name in _SENSITIVITY_FILES],
        [
            *with_cards("MODEL", [given_model]),
            ("--frames", args.frames),
            *as_inputs(find_pairs(args.pairs)),
        ],
        folders=[("--out", args.out)],
    )
    model, card = quantiser.load(given_model)
    frames = CalibrationSet.load(args.frames)
    pictures = crops.read(args.pairs, args.images, args.crop)
    folder = make_folder(args.out)
    with process.stop_on_signal() as stop:
        try:
            found, scales = sensitivity.measure(
                model,
                card,
                frames,
                pictures,
                sensitivity.SensitivityOptions(args.min_psnr, args.method, not args.float_skips),
                stopped=stop.event.is_set,
            )
        except sensitivity.NothingWithin as error:
            print(error.measured)
            raise
        except sensitivity.Interrupted as so_far:
            print(so_far)
            print("calibration: interrupted; only the table so far is left", file=sys.stderr)
            return stop.exit_code
    # The table first, and each file whether or not another can be written: it took hours.
    print(found.table())
    kept = found.frontier[found.chosen - 1]
    print(
        f"\nwithin {found.budget:g} dB: {kept.layers} layers, {kept.macs_share:.1%} of the MACs, "
        f"{kept.drop:+.3f} dB; {shown(folder)}/scales.json, sensitivity.json, sensitivity.png",
        flush=True,
    )
    with ExitStack() as writes:  # all are called, then the first error is raised
        writes.callback(frontier_plot.write, found, folder / "sensitivity.png")
        writes.callback(found.write, folder / "sensitivity.json")
        writes.callback(scales.write, folder / "scales.json")
    return 0


def _check(args: argparse.Namespace) -> int:
    from calibration import checker, gate
    from edge_restore.evaluation.pairs import as_inputs, find_pairs
    from edge_restore.models.cards import card_path, with_cards
    from edge_restore.storage.outputs import check_outputs

    reference = _model(args.reference)
    check_outputs(
        [("the card of MODEL", card_path(args.model))],
        [
            ("MODEL", args.model),
            *with_cards("--reference", [reference]),
            ("--fp16", args.fp16),
            ("--twin", args.twin),
            *(each for folder in args.pairs for each in as_inputs(find_pairs(folder))),
        ],
    )
    with process.stop_on_signal() as stop:
        try:
            verdict = checker.check(
                args.model,
                reference,
                args.pairs,
                options=checker.CheckOptions(args.images, args.min_psnr, args.max_shift),
                fp16=args.fp16,
                twin=args.twin,
                stopped=stop.event.is_set,
            )
        except checker.Incomplete as error:
            if error.so_far is not None:
                print(gate.table(error.so_far))
            if not stop.event.is_set():
                raise
            print("calibration: interrupted; no verdict was written", file=sys.stderr)
            return stop.exit_code
    print(gate.table(verdict))
    checker.write(args.model, verdict)
    return 0 if verdict.passed else 1


def _qat(args: argparse.Namespace) -> None:
    from dataclasses import replace

    from calibration import qat
    from calibration.scales import Scales
    from edge_restore.storage.files import sha256
    from edge_restore.storage.outputs import check_outputs
    from train import recipe as recipes
    from train import run

    check_outputs(
        [("--out:", args.out / "scales.json")],
        [("--scales", args.scales), *run.inputs(args)],
        folders=[("--out", args.out)],
    )
    scales = Scales.read(args.scales)
    recipe = recipes.read(args.recipe)
    if recipe.network != scales.network:
        raise OptionError(
            f"the recipe trains {recipe.network}, the scales are of {scales.network}",
            expected="a recipe and scales of one network",
            hint="name the recipe of this network, e.g. train/recipes/svdn_qat.toml",
        )
    learnt = qat.trainable(scales)
    run.run(args, prepare=qat.attach(learnt))
    weights = args.out / f"{recipe.network}.safetensors"
    out = args.out / "scales.json"
    replace(learnt, weights_sha256=sha256(weights)).write(out)
    print(
        f"{shown(out)}: export {weights.name}, then "
        f"python -m calibration quantise MODEL --scales {shown(out)}"
    )


def parser() -> argparse.ArgumentParser:
    """The argument parser."""
    top = argparse.ArgumentParser(
        prog="python -m calibration", description="INT8 graphs with explicit Q/DQ nodes.",
        epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    _add_collect(commands)
    _add_layers(commands)
    _add_quantise(commands)
    _add_sensitivity(commands)
    _add_qat(commands)
    _add_check(commands)
    return top


def _add_collect(commands: _Commands) -> None:
    p = commands.add_parser("collect", help="pick calibration frames from footage")
    p.add_argument("source", help="a video file, or a folder of images")
    p.add_argument("--out", type=file_path, required=True, metavar="FILE.npz")
    p.add_argument("--count", type=int, default=16, help="how many (default: %(default)s)")
    p.add_argument(
        "--size", metavar="HxW",
        help="of the middle that is cut out (default: 360x640, or the first frame's)",
    )  # fmt: skip
    p.set_defaults(function=_collect)


def _add_layers(commands: _Commands) -> None:
    p = commands.add_parser("layers", help="list the convolutions and what the policy says of each")
    p.add_argument("model", help="an .onnx file, or a name of the zoo")
    p.set_defaults(function=_layers)


def _add_quantise(commands: _Commands) -> None:
    p = commands.add_parser(
        "quantise", aliases=["quantize"], help="write the INT8 form of an exported model"
    )
    p.add_argument("model", help="an .onnx file of `python -m export`, or a name of the zoo")
    p.add_argument("--out", type=file_path, required=True, metavar="FILE.onnx")
    p.add_argument("--frames", type=file_path, metavar="FILE.npz", help="a calibration set")
    p.add_argument("--scales", type=file_path, metavar="FILE.json", help="or scales found before")
    p.add_argument(
        "--scales-out", type=file_path, metavar="FILE.json", help="write the scales, too"
    )
    p.add_argument("--only", nargs="+", default=[], metavar="LAYER", help="quantise these alone")
    p.add_argument("--keep", nargs="+", default=[], metavar="LAYER", help="do not quantise these")
    p.add_argument(
        "--percentile",
        type=number(50, 100),
        metavar="PERCENT",
        help="of the magnitudes, kept by the method percentile (99.99)",
    )
    _add_method(p)
    p.set_defaults(function=_quantise)


def _add_sensitivity(commands: _Commands) -> None:
    p = commands.add_parser(
        "sensitivity", help="what each layer costs, and the largest set within a budget"
    )
    p.add_argument("model", help="the FP32 .onnx with DeformConv nodes, or a name of the zoo")
    p.add_argument("--frames", type=file_path, required=True, metavar="FILE.npz")
    p.add_argument(
        "--pairs", type=any_path, required=True, help="as `edge-restore evaluate` takes them"
    )
    p.add_argument("--out", type=any_path, required=True, metavar="DIR")
    p.add_argument(
        "--images", type=integer(1), default=8, help="pairs to use (default: %(default)s)"
    )
    p.add_argument("--crop", type=integer(16), default=256, help="pixels (default: %(default)s)")
    p.add_argument(
        "--min-psnr", type=number(0, 100), default=0.2, metavar="DB",
        help="the greatest loss against FP32 (default: %(default)s)",
    )  # fmt: skip
    _add_method(p)
    p.set_defaults(function=_sensitivity)


def _add_qat(commands: _Commands) -> None:
    p = commands.add_parser("qat", help="fine-tune weights for their INT8 graph")
    p.add_argument("recipe", type=file_path, help="e.g. train/recipes/svdn_qat.toml")
    p.add_argument("--scales", type=file_path, required=True, metavar="FILE.json")
    p.add_argument("--init", type=file_path, required=True, help="weights to start from")
    p.add_argument("--data", type=file_path, required=True, help="a training pack")
    p.add_argument("--out", type=any_path, required=True, help="folder of the run; resumed")
    p.add_argument("--device", default="auto", help="auto, cpu or cuda")
    p.add_argument("--max-minutes", type=number(0), default=float("inf"))
    p.set_defaults(function=_qat, threads=None, tensorboard=False)


def _add_check(commands: _Commands) -> None:
    p = commands.add_parser("check", help="compare with FP32 and write the verdict into the card")
    p.add_argument("model", type=file_path, help="the INT8 .onnx")
    p.add_argument(
        "--reference",
        required=True,
        metavar="MODEL",
        help="the FP32 .onnx it was made from, or a name of the zoo",
    )
    p.add_argument(
        "--fp16",
        type=file_path,
        help="the FP16 .onnx: for the table, and on a GPU to be timed against",
    )
    p.add_argument(
        "--pairs", type=any_path, required=True, action="append",
        help="as `edge-restore evaluate` takes them; may be given several times",
    )  # fmt: skip
    p.add_argument(
        "--twin",
        type=file_path,
        help="an INT8 .onnx with the same scales and weights, to run where MODEL cannot be run",
    )
    p.add_argument("--images", type=integer(1), help="pairs of each set (default: all)")
    p.add_argument(
        "--min-psnr", type=number(0, 100), default=0.2, metavar="DB",
        help="the greatest loss of a set against FP32 (default: %(default)s)",
    )  # fmt: skip
    p.add_argument(
        "--max-shift", type=number(0, 255), default=0.1, metavar="LEVELS",
        help="the greatest shift of a set's brightness, of 255 (default: %(default)s)",
    )  # fmt: skip
    p.set_defaults(function=_check)


def _add_method(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "--method", default=METHOD,
        help="of choosing ranges: minmax, entropy, mse or percentile (default: %(default)s)",
    )  # fmt: skip
    p.add_argument(
        "--float-skips",
        action="store_true",
        help="let residual additions take their skip connection before it is rounded",
    )


def main(arguments: list[str] | None = None) -> int:
    """Run one command; 0, or 1 for a gate not passed, or 2 for input that cannot be used."""
    arguments = sys.argv[1:] if arguments is None else arguments
    args = parser().parse_args(arguments)
    args.command_line = command_line.kept(
        "python -m calibration", arguments, verbatim=("--only", "--keep")
    )
    return process.run(
        "calibration", lambda: args.function(args), kept="what was finished before stays"
    )


if __name__ == "__main__":
    process.finish(main)
