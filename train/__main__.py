"""The command line of the training room: `python -m train`."""

from __future__ import annotations

from edge_restore.machine import process

if __name__ == "__main__":
    process.guard()  # before the imports that take long

import argparse
import sys
from typing import TypeAlias

from edge_restore.commands import command_line, frame_size
from edge_restore.commands.option_types import any_path, file_path, integer, number, refuse_unused
from edge_restore.errors import OptionError, shown
from edge_restore.machine.streams import print_json
from edge_restore.models.cards import card_path, with_cards
from edge_restore.storage.outputs import InputFolder, check_outputs

_Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

EPILOG = """\
train your own:
  python -m train pack PHOTOS --validation a.jpg --out pack.npz
  python -m train train/recipes/svdn_cpu.toml --data pack.npz --out runs/mine
  python -m export svdn --weights runs/mine/svdn.safetensors --out mine.onnx
on real pairs:
  python -m train pack --dataset gopro GOPRO_Large --out gopro.npz
on several GPUs, or several processes of a CPU:
  torchrun --nproc-per-node 2 -m train run RECIPE --data pack.npz --out runs/mine
"""


_OF_PAIRS = ("--severity", "--count", "--task", "--trajectory", "--jpeg", "--h264", "--longest")
"""The options of `blur` that a sheet, which shows all of the simulator, has no use for."""


def _pack(args: argparse.Namespace) -> None:
    from train import packing

    if args.dataset is None and (args.photos or args.h264 is not None):
        raise OptionError(
            "--photos or --h264 without --dataset",
            expected="--dataset NAME, whose pairs they are for",
            hint="name folders of photos and clips without --photos",
        )
    if args.dataset is None:
        refuse_unused(args, ("--split",), beside="photos and clips without --dataset")
    from train.pack import CLIPS, PHOTOS

    folders = [*args.folders, *(args.photos or [])]
    read = [InputFolder(folder, PHOTOS | CLIPS, below=True) for folder in folders]
    check_outputs([("--out", args.out)], [("the photos and clips", folder) for folder in read])
    dataset = None
    if args.dataset is not None:
        dataset = packing.DataSet(args.dataset, args.split, args.photos or (), args.h264)
    files = packing.make(
        args.folders,
        args.out,
        packing.Names(set(args.exclude), set(args.validation)),
        reduction=packing.Reduction(args.longest, args.longest_clip, args.frames, args.neighbours),
        dataset=dataset,
    )
    kind = "files" if args.dataset is None else "pairs and files"
    for split, names in files.items():
        first = names if args.dataset is None or split == "skipped" else [*names[:8], "..."]
        print(f"{split}: {len(names)} {kind}  {', '.join(shown(name) for name in first)}")
    print(f"{shown(args.out)}: {args.out.stat().st_size / 2**20:.0f} MiB")


def _run(args: argparse.Namespace) -> None:
    from train import run

    run.run(args)


def _ablation(args: argparse.Namespace) -> None:
    from train import ablation, trainer
    from train import checkpoint as checkpoints
    from train import pack as packs
    from train.run import choose_device

    table = ablation.read(args.table, str(args.vgg or ""))
    files = [args.out / row.folder / checkpoints.NAME for row in table.rows]
    check_outputs(
        [("--out:", file) for file in (*files, *ablation.output_files(args.out))],
        [("TABLE", args.table), ("--data", args.data), ("--vgg", args.vgg)],
        folders=[("--out", args.out)],
    )
    device = choose_device(args.device)
    with process.stop_on_signal() as stop:
        results = ablation.run(
            table, packs.load(args.data), args.out, device=device, max_minutes=args.max_minutes,
            stopped=stop.event.is_set,
        )  # fmt: skip
    machine = trainer.machine(device)
    ablation.write(table, results, machine, args.out)
    print(ablation.markdown(table, results, machine), end="")


def _average(args: argparse.Namespace) -> None:
    from train.average import average

    check_outputs(
        [("--out", args.out), ("the card of --out", card_path(args.out))],
        [*with_cards("the weights", [args.first, args.second]), ("--data", args.data)],
    )
    score = average(args.first, args.second, args.share, args.data, args.out, args.command_line)
    print(
        f"{shown(args.out)}: PSNR {score.psnr:.3f} dB ({score.psnr - score.psnr_input:+.3f})  "
        f"SSIM {score.ssim:.4f}, {score.set}"
    )


def _blur(args: argparse.Namespace) -> None:
    from train import pairs, sheet

    if (args.out is None) == (args.sheet is None):
        raise OptionError(
            "blur needs a place for its result",
            expected="either --out FOLDER for pairs, or --sheet FILE.jpg for a picture of the "
            "simulator",
            hint="give one of them",
        )
    if args.sheet is not None:
        refuse_unused(args, _OF_PAIRS, beside="--sheet")
        check_outputs([("--sheet", args.sheet)], [("the picture", args.folder)])
        sheet.make(args.folder, args.sheet, seed=args.seed)
        return
    options = pairs.PairOptions(
        args.severity, args.seed, args.task, args.trajectory, args.jpeg, args.h264, args.longest
    )
    pairs.make(args.folder, args.out, options, count=args.count)


def _networks(args: argparse.Namespace) -> None:
    from train import network_table

    if args.costs is not None:
        refuse_unused(args, ("--size", "--json"), beside="--costs")
        check_outputs([("--costs", args.costs)])
        network_table.write_costs(args.costs)
        return
    size = frame_size.parse(args.size)
    table = network_table.rows(size)
    if args.json:
        print_json(network_table.document(size, table))
    else:
        print(network_table.text(size, table))


def _explain(args: argparse.Namespace) -> None:
    from train import explain

    weights = with_cards("--weights", [args.weights])
    check_outputs([("--out", args.out)], [("IMAGE", args.image), *weights])
    explain.explain(args.image, args.weights, args.out, args.columns)
    print(shown(args.out))


def _curves(args: argparse.Namespace) -> None:
    from train import curves

    check_outputs([("--out", args.out)], [("the log", log) for log in args.logs])
    curves.write(args.logs, args.out)
    print(shown(args.out))


def parser() -> argparse.ArgumentParser:
    """The argument parser."""
    top = argparse.ArgumentParser(
        prog="python -m train", description="Train restoration networks.", epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    _add_pack(commands)
    _add_run(commands)
    _add_ablation(commands)
    _add_average(commands)
    _add_blur(commands)
    _add_networks(commands)
    _add_explain(commands)
    _add_curves(commands)
    return top


def _add_pack(commands: _Commands) -> None:
    p = commands.add_parser("pack", help="photos and clips, or real pairs, into one training file")
    p.add_argument("folders", nargs="+", type=any_path)
    p.add_argument(
        "--dataset", metavar="NAME", help="the folders hold degraded/sharp pairs in the layout of "
        "gopro, gopro_gamma, hide, realblur_j, realblur_r, sidd, rain13k or pairs",
    )  # fmt: skip
    p.add_argument(
        "--split", default="train", help="of the data set: train, validation, test or all"
    )
    p.add_argument(
        "--photos",
        nargs="*",
        type=any_path,
        metavar="FOLDER",
        help="photos and clips beside the pairs",
    )
    p.add_argument(
        "--h264", type=int, metavar="CRF", help="pass the data set's degraded side through H.264"
    )
    p.add_argument("--out", type=file_path, required=True)
    p.add_argument("--exclude", nargs="*", default=[], metavar="NAME", help="files to leave out")
    p.add_argument(
        "--validation", nargs="*", default=[], metavar="NAME", help="files kept for validation"
    )
    p.add_argument(
        "--longest", type=integer(1), default=1600, help="longest side of a photo, pixels"
    )
    p.add_argument(
        "--longest-clip",
        type=integer(1),
        default=960,
        help="longest side of a clip's frames, pixels",
    )
    p.add_argument("--frames", type=integer(1), default=6, help="frames from each clip")
    p.add_argument(
        "--neighbours", action="store_true", help="and the frames right before and after each"
    )
    p.set_defaults(function=_pack, parser=p)


def _add_run(commands: _Commands) -> None:
    p = commands.add_parser(
        "run", help="train by a recipe; the word may be left out before a .toml"
    )
    p.add_argument("recipe", type=file_path)
    p.add_argument("--data", type=file_path, required=True, help="a training pack")
    p.add_argument(
        "--out",
        type=any_path,
        required=True,
        help="folder of the run; resumed when it has a checkpoint",
    )
    p.add_argument(
        "--max-minutes",
        type=number(0),
        default=float("inf"),
        help="stop with a checkpoint after this time",
    )
    p.add_argument("--init", type=file_path, help="weights (.safetensors) to start from")
    p.add_argument("--device", default="auto", help="auto, cpu or cuda")
    p.add_argument("--threads", type=integer(1), help="CPU threads")
    p.add_argument(
        "--tensorboard", action="store_true", help="curves and pictures in OUT/tensorboard"
    )
    p.set_defaults(function=_run)


def _add_ablation(commands: _Commands) -> None:
    p = commands.add_parser(
        "ablation", help="train every row of a paper's ablation table, with the same budget"
    )
    p.add_argument("table", type=file_path, help="a file of train/ablations")
    p.add_argument("--data", type=file_path, required=True, help="a training pack")
    p.add_argument("--out", type=any_path, required=True, help="folder of the rows' runs; resumed")
    p.add_argument(
        "--max-minutes", type=number(0), default=float("inf"),
        help="stop after this time; the same command goes on",
    )  # fmt: skip
    p.add_argument(
        "--vgg", type=file_path, help="VGG's weights (.safetensors), for rows that need them"
    )
    p.add_argument("--device", default="auto", help="auto, cpu or cuda")
    p.set_defaults(function=_ablation)


def _add_average(commands: _Commands) -> None:
    p = commands.add_parser("average", help="average the weights of two runs of one network")
    p.add_argument("first", type=file_path)
    p.add_argument(
        "second", type=file_path, help="the one that was trained from the first, or a sister"
    )
    p.add_argument(
        "--share", type=float, default=0.5, help="of the second, 0 to 1 (default: %(default)s)"
    )
    p.add_argument("--data", type=file_path, required=True, help="the training pack, to score it")
    p.add_argument("--out", type=file_path, required=True, metavar="FILE.safetensors")
    p.set_defaults(function=_average)


def _add_blur(commands: _Commands) -> None:
    p = commands.add_parser("blur", help="sharp pictures into degraded/sharp pairs, for evaluation")
    p.add_argument("folder", type=any_path, help="of sharp pictures; with --sheet one picture")
    p.add_argument("--out", type=any_path, help="folder for the pairs")
    p.add_argument("--sheet", type=file_path, help="or a JPEG that shows what the simulator does")
    p.add_argument("--task", default="deblur", help="deblur, denoise or derain")
    p.add_argument("--trajectory", default="walk", help="walk, straight, impulses, tremor or mixed")
    p.add_argument("--jpeg", action="store_true", help="compress, at the same severity")
    p.add_argument("--h264", type=int, metavar="CRF", help="pass each picture through H.264")
    p.add_argument("--severity", default="medium", help="light, medium or heavy")
    p.add_argument("--seed", type=integer(0, 2**63 - 1), default=0)
    p.add_argument("--count", type=integer(1), help="the first so many pictures")
    p.add_argument(
        "--longest",
        type=integer(1),
        metavar="PIXELS",
        help="reduce larger pictures to this side first",
    )
    p.set_defaults(function=_blur, parser=p)


def _add_networks(commands: _Commands) -> None:
    p = commands.add_parser("networks", help="what each network costs, beside its paper's figures")
    p.add_argument(
        "--size", default="720x1280", metavar="HxW", help="of a picture (default: %(default)s)"
    )
    p.add_argument("--json", action="store_true", help="print JSON")
    p.add_argument(
        "--costs",
        type=file_path,
        metavar="FILE.json",
        help="instead write the file that `edge-restore bench` counts with",
    )
    p.set_defaults(function=_networks, parser=p)


def _add_explain(commands: _Commands) -> None:
    p = commands.add_parser(
        "explain", help="draw where SVDN samples an image, and the blur map from it"
    )
    p.add_argument("image", type=file_path)
    p.add_argument(
        "--weights", type=file_path, required=True, help="SVDN's .safetensors, card beside it"
    )
    p.add_argument("--out", type=file_path, required=True, metavar="FILE.png")
    p.add_argument(
        "--columns",
        type=integer(1),
        default=6,
        help="places from left to right (default: %(default)s)",
    )
    p.set_defaults(function=_explain)


def _add_curves(commands: _Commands) -> None:
    p = commands.add_parser("curves", help="draw the curves of one or several runs' logs")
    p.add_argument("logs", nargs="+", type=file_path, help="what `python -m train RECIPE` printed")
    p.add_argument("--out", type=file_path, required=True, metavar="FILE.png")
    p.set_defaults(function=_curves)


def main(arguments: list[str] | None = None) -> int:
    """Run one command; 0 on success, 2 with a message when the input cannot be used."""
    arguments = sys.argv[1:] if arguments is None else arguments
    # `python -m train RECIPE` is what one types most.
    shortcut = ["run"] if arguments and arguments[0].endswith(".toml") else []
    args = parser().parse_args(shortcut + arguments)
    args.command_line = command_line.kept("python -m train", arguments)
    return process.run("train", lambda: args.function(args), kept="what was finished before stays")


if __name__ == "__main__":
    process.finish(main)
