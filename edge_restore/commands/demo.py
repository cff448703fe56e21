"""``edge-restore demo``."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from edge_restore.commands.option_types import any_path
from edge_restore.commands.restorer_options import (
    add_restorer_arguments,
    create_restorer,
    model_inputs,
)
from edge_restore.errors import OptionError

_MIN_SIDE = 64

HELP = """\
Show it: a photo under a hand's motion, blurred and restored, with the gain measured.

A simulated hand-held camera films a photo in low light. The blurred clip is restored by the
same pipeline as in `edge-restore run` and compared with the sharp frames, which the simulation
knows. Writes the clips, a before/after clip, a contact sheet and a report.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument(
        "--out",
        type=any_path,
        default=Path("out/demo"),
        metavar="DIR",
        help="the folder for the results, created when missing; default: out/demo",
    )
    parser.add_argument(
        "--frames", type=int, default=60, metavar="N", help="length of the clip; default: 60"
    )
    parser.add_argument(
        "--size", default="640x360", metavar="WxH", help="size of a frame; default: 640x360"
    )
    add_restorer_arguments(parser)


def demo(options: argparse.Namespace) -> int:
    """Run the command; `HELP` says what it does."""
    from edge_restore.demo.camera import HandHeldCamera
    from edge_restore.demo.demonstration import demonstrate, output_files
    from edge_restore.report import cells
    from edge_restore.storage.files import make_folder
    from edge_restore.storage.outputs import check_outputs

    width, height = _size(options.size)
    if options.frames < 1:
        raise OptionError(
            f"the number of frames is {options.frames}",
            expected="1 or more",
            hint="leave the option out for 60",
        )
    check_outputs(
        [("the demo's file", path) for path in output_files(options.out)],
        model_inputs(options),
        folders=[("--out", options.out)],
    )
    restorer = create_restorer(options)
    folder = make_folder(options.out)
    camera = HandHeldCamera(width=width, height=height)
    result = demonstrate(folder, camera, options.frames, restorer)
    report = result.report
    shortest, median, longest = result.blur_px
    print()
    stages = [
        [name, *(cells.milliseconds(value) for value in (p.p50, p.p90, p.p99, p.mean))]
        for name, p in report.stages.items()
    ]
    print(cells.text_table(["stage", "p50 ms", "p90 ms", "p99 ms", "mean ms"], stages))
    print()
    print(f"blur length  {median:.1f} px ({shortest:.1f} to {longest:.1f})")
    if (quality := report.quality) is not None:
        print(
            f"PSNR         {cells.decibels(quality.psnr_before)} -> "
            f"{cells.decibels(quality.psnr_after)} dB ({cells.gain(quality.psnr_gain_db)} dB)"
        )
        print(
            f"SSIM         {cells.similarity(quality.ssim_before)} -> "
            f"{cells.similarity(quality.ssim_after)}"
        )
    print(f"\nlook at      {result.files[0]}")
    for file in result.files[1:]:
        print(f"             {file}")
    return 0


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text)
    sides = (int(match[1]), int(match[2])) if match else (0, 0)
    if min(sides) < _MIN_SIDE or any(side % 2 for side in sides):
        raise OptionError(
            f"the size is '{text}'",
            expected=f"WIDTHxHEIGHT, both even and at least {_MIN_SIDE}",
            hint="leave the option out for 640x360",
        )
    return sides
