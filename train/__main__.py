"""The command line of the training room: `python -m train`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from edge_restore import frame_size
from edge_restore.errors import UserError

EPILOG = """\
train your own:
  python -m train pack PHOTOS --validation a.jpg --out pack.npz
  python -m train train/recipes/svdn_cpu.toml --data pack.npz --out runs/mine
  python -m export svdn --weights runs/mine/svdn.safetensors --out mine.onnx
on several GPUs, or several processes of a CPU:
  torchrun --nproc-per-node 2 -m train run RECIPE --data pack.npz --out runs/mine
"""


def _pack(args: argparse.Namespace) -> None:
    from train import pack

    files = pack.make(
        args.folders, args.out, exclude=set(args.exclude), validation=set(args.validation),
        longest=args.longest, longest_clip=args.longest_clip, frames=args.frames,
    )  # fmt: skip
    for split, names in files.items():
        print(f"{split}: {len(names)} files  {', '.join(names)}")
    print(f"{args.out}: {args.out.stat().st_size / 2**20:.0f} MiB")


def _run(args: argparse.Namespace) -> None:
    from train import run

    run.run(args)


def _blur(args: argparse.Namespace) -> None:
    from train import pairs

    pairs.make(args.folder, args.out, severity=args.severity, seed=args.seed, count=args.count)


def _networks(args: argparse.Namespace) -> None:
    from train import network_table

    size = frame_size.parse(args.size, least=1)
    table = network_table.rows(size)
    if args.json:
        print(json.dumps(network_table.document(size, table), indent=2))
    else:
        print(network_table.text(size, table))


def _explain(args: argparse.Namespace) -> None:
    from train import explain

    explain.explain(args.image, args.weights, args.out, args.columns)
    print(args.out)


def _curves(args: argparse.Namespace) -> None:
    from train import curves

    curves.write(args.logs, args.out)
    print(args.out)


def parser() -> argparse.ArgumentParser:
    """The argument parser."""
    top = argparse.ArgumentParser(
        prog="python -m train", description="Train restoration networks.", epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    p = commands.add_parser("pack", help="photos and clips into one training file")
    p.add_argument("folders", nargs="+", type=Path)
    p.add_argument("--out", type=Path, required=True)
    p.add_argument("--exclude", nargs="*", default=[], metavar="NAME", help="files to leave out")
    p.add_argument(
        "--validation", nargs="*", default=[], metavar="NAME", help="files kept for validation"
    )
    p.add_argument("--longest", type=int, default=1600, help="longest side of a photo, pixels")
    p.add_argument(
        "--longest-clip", type=int, default=960, help="longest side of a clip's frames, pixels"
    )
    p.add_argument("--frames", type=int, default=6, help="frames from each clip")
    p.set_defaults(function=_pack)

    p = commands.add_parser(
        "run", help="train by a recipe; the word may be left out before a .toml"
    )
    p.add_argument("recipe", type=Path)
    p.add_argument("--data", type=Path, required=True, help="a training pack")
    p.add_argument(
        "--out",
        type=Path,
        required=True,
        help="folder of the run; resumed when it has a checkpoint",
    )
    p.add_argument(
        "--max-minutes",
        type=float,
        default=float("inf"),
        help="stop with a checkpoint after this time",
    )
    p.add_argument("--init", type=Path, help="weights (.safetensors) to start from")
    p.add_argument("--device", default="auto", help="auto, cpu or cuda")
    p.add_argument("--threads", type=int, help="CPU threads")
    p.add_argument(
        "--tensorboard", action="store_true", help="curves and pictures in OUT/tensorboard"
    )
    p.set_defaults(function=_run)

    p = commands.add_parser("blur", help="sharp pictures into blurred/sharp pairs, for evaluation")
    p.add_argument("folder", type=Path)
    p.add_argument("--out", type=Path, required=True)
    p.add_argument("--severity", default="medium", help="light, medium or heavy")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--count", type=int, help="the first so many pictures")
    p.set_defaults(function=_blur)

    p = commands.add_parser("networks", help="what each network costs, beside its paper's figures")
    p.add_argument(
        "--size", default="720x1280", metavar="HxW", help="of a picture (default: %(default)s)"
    )
    p.add_argument("--json", action="store_true", help="print JSON")
    p.set_defaults(function=_networks)

    p = commands.add_parser(
        "explain", help="draw where SVDN samples an image, and the blur map from it"
    )
    p.add_argument("image", type=Path)
    p.add_argument(
        "--weights", type=Path, required=True, help="SVDN's .safetensors, card beside it"
    )
    p.add_argument("--out", type=Path, required=True, metavar="FILE.png")
    p.add_argument(
        "--columns", type=int, default=6, help="places from left to right (default: %(default)s)"
    )
    p.set_defaults(function=_explain)

    p = commands.add_parser("curves", help="draw the curves of one or several runs' logs")
    p.add_argument("logs", nargs="+", type=Path, help="what `python -m train RECIPE` printed")
    p.add_argument("--out", type=Path, required=True, metavar="FILE.png")
    p.set_defaults(function=_curves)
    return top


def main(arguments: list[str] | None = None) -> int:
    """Run one command; 0 on success, 2 with a message when the input cannot be used."""
    arguments = sys.argv[1:] if arguments is None else arguments
    # `python -m train RECIPE` is what one types most.
    shortcut = ["run"] if arguments and arguments[0].endswith(".toml") else []
    args = parser().parse_args(shortcut + arguments)
    # For the card; absolute paths say more of this machine than of the training.
    args.command_line = [Path(a).name if Path(a).is_absolute() else a for a in arguments]
    try:
        args.function(args)
    except UserError as error:
        print(f"train: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("train: interrupted; the last checkpoint stays", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
