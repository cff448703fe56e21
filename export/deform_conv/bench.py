"""Timing the kernel on a GPU: ``python -m export.deform_conv.bench --out bench.json [--tune]``.

Compares it, at SVDN's deformable layer, with torchvision's deform_conv2d, with GridSample + GEMM,
and with the floor: the slower of moving the layer's bytes once at the copy bandwidth that was
measured here, and doing its operations at the matrix rate that was measured here.

Run on an H100 (docs/results), but for `--tune`. Without a GPU it says so and ends with status 2.
"""

from __future__ import annotations

from edge_restore.machine import optional, process

if __name__ == "__main__":
    process.guard()  # before the imports that take long

import argparse
import functools
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from edge_restore.commands import frame_size
from edge_restore.commands.option_types import file_path
from edge_restore.errors import BackendError, OptionError
from edge_restore.pipeline.latency import Percentiles, percentiles
from edge_restore.storage.files import check_writable, write_text
from edge_restore.storage.json_file import encode

SCHEMA = "edge_restore.kernel_bench/1"
SIZES = ("360x640", "720x1280")
"""Of the layer, which runs at half resolution: for frames of 720x1280 and 1440x2560."""
TAPS_CHANNELS = 25 * 48
WARM_UP = 20
BATCH = 25
"""Launches that are enqueued behind a delay, so that the GPU never waits for Python."""


def parser() -> argparse.ArgumentParser:
    """The argument parser."""
    p = argparse.ArgumentParser(
        prog="python -m export.deform_conv.bench",
        description="Time the deformable-convolution kernel on an NVIDIA GPU.",
    )
    p.add_argument("--out", type=file_path, help="a JSON file for the results")
    p.add_argument(
        "--size", action="append", metavar="HxW",
        help=f"of the layer, repeatable (default: {' '.join(SIZES)})",
    )  # fmt: skip
    p.add_argument("--samples", type=int, default=200, help="timed launches (default: %(default)s)")
    p.add_argument(
        "--tune", action="store_true",
        help="try every block shape first and write the best into export/deform_conv/measured.json",
    )  # fmt: skip
    return p


def require_gpu() -> Any:
    """The torch module, once it sees a GPU.

    Raises:
        DependencyError: torch or triton is not installed.
        BackendError: there is no GPU.
    """
    torch = optional.require("torch", needed_for="the benchmark")
    optional.require("triton", needed_for="the benchmark")
    if not torch.cuda.is_available():
        raise BackendError(
            "this machine has no NVIDIA GPU that torch can use",
            expected="an NVIDIA GPU, its driver, and a torch built for CUDA",
            hint="run `python -m export.deform_conv.bench` on such a machine",
        )
    return torch


def time_gpu(run: Callable[[], Any], samples: int) -> Percentiles:
    """Milliseconds on the GPU of each of `samples` calls, between CUDA events, after a warm-up.

    The L2 cache is left as the previous call leaves it, as in a network the previous layer does.
    """
    import torch

    for _ in range(WARM_UP):
        run()
    delay = torch.ones(8192, 8192, device="cuda", dtype=torch.float16)
    torch.cuda.synchronize()
    times: list[float] = []
    while len(times) < samples:
        for _ in range(12):  # some 15 ms on the fastest GPUs: longer than enqueuing a batch takes
            delay @ delay
        marks = []
        for _ in range(min(BATCH, samples - len(times))):
            event: Any = torch.cuda.Event
            start, end = (event(enable_timing=True) for _ in range(2))
            start.record()
            run()
            end.record()
            marks.append((start, end))
        torch.cuda.synchronize()
        times += [start.elapsed_time(end) for start, end in marks]
    return percentiles(times)


def measure_ceilings(samples: int = 50) -> dict[str, float]:
    """Copy bandwidth in GB/s (bytes read plus written) and matrix rates in TFLOP/s, here and now.

    The float32 rate is without TF32, as the float32 kernel computes.
    """
    import torch

    torch.backends.cuda.matmul.allow_tf32 = False
    source = torch.empty(1 << 30, dtype=torch.uint8, device="cuda")
    copy_ms = time_gpu(functools.partial(torch.empty_like(source).copy_, source), samples).p50
    found = {"copy_gb_per_s": 2 * source.numel() / copy_ms / 1e6}
    side = 8192
    for name, dtype in (("fp16", torch.float16), ("fp32", torch.float32)):
        matrix = torch.randn(side, side, device="cuda").to(dtype)
        product_ms = time_gpu(functools.partial(torch.matmul, matrix, matrix), samples).p50
        found[f"matrix_{name}_tflops"] = 2 * side**3 / product_ms / 1e9
    return found


def bench_layer(
    height: int, width: int, precision: str, ceilings: dict[str, float], samples: int
) -> dict[str, Any]:
    """Times of all contenders, the floor, and the kernel's error, for one size and precision."""
    import torch

    from export.deform_conv import contenders

    dtype = {"fp16": torch.float16, "fp32": torch.float32}[precision]
    layer = contenders.Layer.random(height, width, dtype, "cuda")
    kernel = contenders.ours(layer)
    try:
        error = (kernel().permute(0, 3, 1, 2).float() - layer.reference()).abs().max().item()
    except torch.cuda.OutOfMemoryError as failure:
        raise BackendError(
            f"the GPU's memory does not hold the reference for {height}x{width}",
            expected=f"about {height * width * TAPS_CHANNELS * 12 >> 30} GB for its taps",
            hint="time a smaller layer with --size",
        ) from failure
    runs = {
        "ours": kernel,
        "torchvision": contenders.torchvision_op(layer),
        "GridSample + GEMM": contenders.grid_sample_and_gemm(layer),
    }
    bytes_ms = layer.bytes_moved / ceilings["copy_gb_per_s"] / 1e6
    operations_ms = layer.operations / ceilings[f"matrix_{precision}_tflops"] / 1e9
    return {
        "height": height,
        "width": width,
        "precision": precision,
        "max_abs_error": error,
        "floor_ms": max(bytes_ms, operations_ms),
        "floor_bytes_ms": bytes_ms,
        "floor_operations_ms": operations_ms,
        "times_ms": {
            name: None if run is None else _time_or_none(run, samples) for name, run in runs.items()
        },
    }


def _time_or_none(run: Callable[[], Any], samples: int) -> dict[str, Any] | None:
    """None where the GPU's memory does not hold it: GridSample + GEMM keeps all taps at once."""
    import torch

    try:
        return asdict(time_gpu(run, samples))
    except torch.cuda.OutOfMemoryError:
        return None


def tune(precision: str, samples: int) -> list[dict[str, Any]]:
    """Time every candidate shape at the first size and record the fastest, as long as it is right.

    Returns:
        One object per shape with its median, fastest first; those that do not run come last.
    """
    import torch

    from export.deform_conv import contenders
    from export.deform_conv.blocks import candidates, estimate, record
    from export.deform_conv.launch import architecture

    arch = architecture(torch.device("cuda"))
    dtype = {"fp16": torch.float16, "fp32": torch.float32}[precision]
    layer = contenders.Layer.random(*frame_size.parse(SIZES[0]), dtype, "cuda")
    expected = layer.reference()
    tried: list[dict[str, Any]] = []
    for blocks in candidates(precision):
        run = contenders.ours(layer, blocks)
        row: dict[str, Any] = {
            "blocks": asdict(blocks),
            "model_clocks": estimate(blocks, arch, precision).clocks,
        }
        try:
            error = (run().permute(0, 3, 1, 2).float() - expected).abs().max().item()
        except Exception as failure:  # Triton has a dozen types for shapes that do not fit
            tried.append({**row, "median_ms": None, "failure": str(failure)[:200]})
            continue
        row |= {"max_abs_error": error, "median_ms": time_gpu(run, samples).p50}
        tried.append(row)
    tried.sort(key=lambda row: (row["median_ms"] is None, row["median_ms"]))
    best = tried[0]
    if best["median_ms"] is not None and best["max_abs_error"] < 0.05:
        shape = next(b for b in candidates(precision) if asdict(b) == best["blocks"])
        record(arch, precision, shape, best["median_ms"], torch.cuda.get_device_name())
    return tried


def versions() -> dict[str, str | None]:
    """The GPU and the libraries that were measured."""
    import torch
    import triton

    try:
        import torchvision
    except ImportError:
        vision = None
    else:
        vision = torchvision.__version__
    return {
        "gpu": torch.cuda.get_device_name(),
        "compute_capability": "{}.{}".format(*torch.cuda.get_device_capability()),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "triton": triton.__version__,
        "torchvision": vision,
    }


def table(document: dict[str, Any]) -> str:
    """The results as a short plain-text table, one line per size, precision and contender."""
    machine = document["machine"]
    rates = ", ".join(f"{name} {value:.0f}" for name, value in document["ceilings"].items())
    lines = [
        f"{machine['gpu']} (sm_{machine['compute_capability'].replace('.', '')}), torch "
        f"{machine['torch']}, triton {machine['triton']}, torchvision {machine['torchvision']}",
        f"measured: {rates}",
        f"{'layer':<10}{'prec':<6}{'':<19}{'p50 ms':>9}{'p90 ms':>9}{'p99 ms':>9}"
        f"{'ours is':>10}{'samples':>9}",
    ]
    for result in document["results"]:
        head = f"{result['height']}x{result['width']:<6}{result['precision']:<6}"
        own = result["times_ms"]["ours"]["p50"]
        for name, times in result["times_ms"].items():
            if times is None:
                lines.append(f"{head}{name:<19}{'not there, or out of memory':>27}")
                continue
            figures = "".join(f"{times[p]:>9.3f}" for p in ("p50", "p90", "p99"))
            lines.append(f"{head}{name:<19}{figures}{times['p50'] / own:>9.2f}x{times['count']:>9}")
        floor = result["floor_ms"]
        lines.append(f"{head}{'floor':<19}{floor:>9.3f}{'':>18}{floor / own:>9.2f}x")
        lines.append(f"{head}greatest difference from float32: {result['max_abs_error']:.1e}")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark; 0 when done, 2 with a message when it cannot be done here."""
    args = parser().parse_args(arguments)
    return process.run("bench", lambda: _run(args), kept="nothing was written")


def _run(args: argparse.Namespace) -> None:
    sizes = [frame_size.parse(text, example="360x640") for text in args.size or SIZES]
    if args.samples < 1:
        raise OptionError(
            f"--samples {args.samples} measures nothing", expected="1 or more",
            hint="leave it out for 200",
        )  # fmt: skip
    if args.out is not None:
        check_writable(args.out)
    require_gpu()
    tuned = {p: tune(p, 50) for p in ("fp16", "fp32")} if args.tune else {}
    ceilings = measure_ceilings()
    document = {
        "schema": SCHEMA,
        "machine": versions(),
        "ceilings": ceilings,
        "results": [
            bench_layer(*size, precision, ceilings, args.samples)
            for size in sizes
            for precision in ("fp16", "fp32")
        ],
        "tuned": tuned,
    }
    if args.out is not None:
        write_text(args.out, encode(document, indent=1) + "\n")
    print(table(document))
    if args.tune:
        print(
            "the best shapes are in export/deform_conv/measured.json; put them into the PTX with\n"
            "  python -m export.deform_conv compile --out edge_restore/engine/plugin/ptx"
        )


if __name__ == "__main__":
    process.finish(main)
