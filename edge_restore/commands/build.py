"""``edge-restore build``."""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from edge_restore.commands.option_types import any_path, file_path, number, refuse_unused
from edge_restore.errors import OptionError

if TYPE_CHECKING:
    from edge_restore.engine.builder import Built
    from edge_restore.engine.compare import Comparison
    from edge_restore.engine.plan import Plan

WORST_LAYERS = 12
"""So many rows has the table of `--compare`."""

HELP = """\
Build a TensorRT engine from a model, and verify its precision.

The engine takes frames of one size. A size that is no multiple of the network's own is built
as the next one that is; frames are padded to it when they are restored. Beside the engine lies
a manifest, which says what it was built from and for, and without which nothing here loads it.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument(
        "model",
        metavar="MODEL",
        help="a model of the zoo (see `edge-restore models`), or an .onnx file with its card "
        "beside it",
    )
    parser.add_argument(
        "--precision",
        choices=("fp32", "fp16", "int8"),
        default="fp16",
        help="what the ONNX file must be typed; default: fp16",
    )
    parser.add_argument("--size", required=True, metavar="HxW", help="of the frames, e.g. 720x1280")
    parser.add_argument(
        "--flavour",
        choices=("auto", "tensorrt", "rtx"),
        default="auto",
        help="the standard library or TensorRT-RTX; default: the one that suits this machine",
    )
    parser.add_argument(
        "--target",
        action="append",
        default=[],
        metavar="sm_86",
        help="a GPU to build for; may be given several times; default: the GPU that is here, or "
        "everything that TensorRT-RTX knows",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=file_path,
        metavar="FILE",
        help="the engine; default: one in the cache",
    )
    parser.add_argument(
        "--cache",
        type=any_path,
        metavar="DIR",
        help="the cache's folder, see `edge-restore engines`",
    )
    parser.add_argument("--force", action="store_true", help="build it though it is in the cache")
    parser.add_argument(
        "--ungated",
        action="store_true",
        help="build an INT8 graph though its card has no verdict, or a bad one",
    )
    parser.add_argument(
        "--wait",
        type=number(0),
        default=600.0,
        metavar="SECONDS",
        help="for another process that builds the same engine; default: 600",
    )
    parser.add_argument("--log", type=file_path, metavar="FILE", help="write what the builder says")
    parser.add_argument("--verbose", action="store_true", help="show what the builder says")
    parser.add_argument(
        "--compare",
        action="store_true",
        help="then compare layer by layer with FP32 in ONNX Runtime; where the engine cannot be "
        "run, the graph that went into it",
    )
    parser.add_argument(
        "--reference",
        type=file_path,
        metavar="FILE",
        help="the FP32 graph to compare with; default: one of the same weights beside the model",
    )


def build(options: argparse.Namespace) -> int:
    """Run the command; `HELP` says what it does."""
    from edge_restore.commands import frame_size
    from edge_restore.engine import builder, flavour, gpu
    from edge_restore.engine.build_log import BuildLog
    from edge_restore.engine.cache import EngineCache
    from edge_restore.engine.manifest import load_checked
    from edge_restore.engine.plan import make_plan
    from edge_restore.storage import trusted_file
    from edge_restore.storage.files import write_text

    size = frame_size.parse(options.size)
    _check_options(options)
    _check_outputs(options, options.output)
    if options.output is not None:
        # Nothing would load it from there, so do not begin to build it.
        trusted_file.check_folder(options.output.parent, "the output", "build it there")
    here = gpu.this_gpu()
    plan = make_plan(
        options.model,
        flavour.load(options.flavour),
        precision=options.precision,
        size=size,
        gpu=here,
        wanted_targets=options.target,
        ungated=options.ungated,
    )
    if options.compare:
        from edge_restore.engine import compare

        compare.check(plan, options.reference)
    store = None
    if options.output is None or options.cache is not None:
        store = EngineCache(options.cache, wait_seconds=options.wait)
        if not store.is_own:
            print(
                f"edge-restore: '{store.folder}' holds other files: it is used, and nothing in it "
                "is ever removed",
                file=sys.stderr,
            )
    if store is not None and options.log is not None:
        _check_outputs(options, options.output or store.path(plan.card.name, plan.key))
    log = BuildLog(sys.stderr if options.verbose else None)
    started = time.monotonic()
    built: Built | None
    try:
        if options.output is not None:
            folder = store.folder if store else None
            built = builder.build(plan, timing_folder=folder, log=log)
            builder.write(built, plan, options.output, command=_command(options))
            engine = options.output
        else:
            assert store is not None
            engine, built = builder.obtain(
                plan, store, command=_command(options), force=options.force, log=log,
                note=lambda text: print(f"edge-restore: {text}", file=sys.stderr),
            )  # fmt: skip
    finally:
        if options.log is not None and log.messages:
            write_text(options.log, log.text)
    _tell(plan, engine, built, time.monotonic() - started)
    if options.compare:
        loaded = load_checked(engine, plan.expectation)
        folder = store.folder if store else None
        _tell_comparison(
            compare.compare(plan, loaded.engine, reference=options.reference, timing_folder=folder)
        )
    return 0


def _check_options(options: argparse.Namespace) -> None:
    """Refuse options that contradict each other or have no effect together."""
    if options.reference is not None and not options.compare:
        raise OptionError(
            "--reference names a graph to compare with, and nothing is to be compared",
            expected="--reference together with --compare",
            hint="add --compare, or leave --reference out",
        )
    if options.output is not None and options.output.suffix != ".engine":
        raise OptionError(
            f"the output '{options.output}' does not end in .engine",
            expected="the name of the engine; its manifest goes beside it",
            hint=f"use -o {options.output.with_suffix('.engine')}",
        )
    if options.output is not None:
        refuse_unused(options, ("--force", "--wait"), beside="--output, which is always built")
    if options.precision != "int8":
        refuse_unused(options, ("--ungated",), beside=f"--precision {options.precision}")


def _check_outputs(options: argparse.Namespace, engine: Path | None) -> None:
    """Compare what is written with what is read."""
    from edge_restore.engine.cache import files_of
    from edge_restore.engine.flavour import NAMES
    from edge_restore.models import zoo
    from edge_restore.models.cards import with_cards
    from edge_restore.storage.outputs import check_outputs

    model = str(options.model)
    read = set(zoo.find(model))
    if model in zoo.names():
        read |= {f for n in NAMES for f in zoo.engine_files(model, n, options.precision)}
    else:  # `--compare` looks for a reference there
        read |= {file for path in read for file in path.parent.glob("*.onnx")}
    reference = [options.reference] if options.reference is not None else []
    files = files_of(engine) if engine is not None else ()
    check_outputs(
        [("--log", options.log), *(("the engine's file", file) for file in files)],
        [*with_cards("MODEL", sorted(read)), *with_cards("--reference", reference)],
    )


def _command(options: argparse.Namespace) -> str:
    """The command as a manifest keeps it, without this machine's folders."""
    words = ["edge-restore", "build", Path(options.model).name]
    words += ["--precision", options.precision, "--size", options.size]
    words += ["--flavour", options.flavour]
    for target in options.target:
        words += ["--target", target]
    return shlex.join(words)


def _tell(plan: Plan, engine: Path, built: Built | None, seconds: float) -> None:
    from edge_restore.engine.manifest import in_words, read_manifest
    from edge_restore.progress import duration
    from edge_restore.report import cells

    manifest = read_manifest(engine)
    size = f"{plan.height}x{plan.width}"
    if (plan.height, plan.width) != plan.frame:
        size += f", to which frames of {plan.frame[0]}x{plan.frame[1]} are padded"
    rows = [
        ("model", f"{plan.model.name} ({plan.card.deformable})"),
        ("size", size),
        ("precision", f"{manifest.precision}; convolutions: {in_words(manifest.layers.matrix)}"),
        ("verified by", f"the {manifest.verified_by}"),
        ("built by", f"{plan.flavour.title} {plan.flavour.version}"),
        ("built for", ", ".join(manifest.targets)),
    ]
    if built is not None and (scratch := built.log.scratch_bytes()) is not None:
        rows.append(("activations", cells.size(scratch)))
    for name, text in rows:
        print(f"{name:<13}{text}")
    done = f"took {duration(seconds)}" if built is not None else "was in the cache"
    print(f"{engine}: {cells.size(manifest.engine.bytes or 0)}, {done}")


def _tell_comparison(comparison: Comparison) -> None:
    from edge_restore.report import cells

    print()
    if comparison.not_run:
        print(f"the engine itself was not run: {comparison.not_run}")
        print(
            f"in its stead {comparison.compared.name}, which went into it, was run by ONNX Runtime"
        )
    height, width = comparison.size
    print(
        f"{len(comparison.layers)} layers against {comparison.reference.name} (FP32, ONNX Runtime) "
        f"at {height}x{width}; the largest errors:"
    )
    rows = [
        (
            layer.name,
            layer.operator,
            f"{layer.max_abs:.2g}",
            cells.decibels(layer.psnr) if layer.finite else "not finite",
        )
        for layer in comparison.layers[:WORST_LAYERS]
    ]
    print(cells.text_table(("layer", "operator", "max error", "PSNR dB"), rows, left=2))
    picture = comparison.picture  # of levels, so always finite
    print(
        f"the restored picture: {cells.decibels(picture.psnr)} dB, at most {picture.max_abs:.0f} "
        "of 255 levels off"
    )
