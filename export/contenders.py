"""What a user would run instead, timed in turns with what we offer: `python -m export.contenders`.

Every contender restores one 8-bit frame in the host's memory to another, with all copies and
conversions, so the times can be compared. PSNR is against torch in eager mode and FP32. Torch has
no deformable convolution of its own: "torch eager" writes it with grid_sample, as anybody can; the
training's C kernel stands beside it. Of those for a GPU, torch's have been run on one with
LMFN; engines not yet.
"""

from __future__ import annotations

from edge_restore.machine import optional, process

if __name__ == "__main__":
    process.guard()  # before the imports that take long

import argparse
import contextlib
import copy
import functools
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from edge_restore import backends
from edge_restore.backends.restorer import restore_one
from edge_restore.bench import tables, timing
from edge_restore.bench.timing import Timing
from edge_restore.commands import frame_size
from edge_restore.commands.option_types import file_path
from edge_restore.errors import BackendError, UserError
from edge_restore.frames import Pixels
from edge_restore.machine.describe import this_machine
from edge_restore.media import photo
from edge_restore.media.metrics import psnr
from edge_restore.media.padding import pad_to_multiple
from edge_restore.models import zoo
from edge_restore.models.cards import card_path
from edge_restore.models.model import Model
from edge_restore.report import cells
from edge_restore.storage.temporaries import temporary
from train import weights as weights_files
from train.networks import compiler_caches, deform_sample
from train.networks.deform_conv import DeformConv2d

Restore = Callable[[Pixels], Pixels]
Contenders = dict[str, Restore]

DESCRIPTION = "What a user would run instead, timed in turns with what we offer."

EAGER, PLAIN = "torch eager", "plain ONNX Runtime"


def contenders(
    model: str, weights: Path, height: int, width: int, only: str = ""
) -> tuple[Contenders, list[str]]:
    """What can be run here, by name, and why the others cannot.

    Args:
        model: a name of the zoo.
        weights: the safetensors that it was exported from.
        height, width: of the frames.
        only: those with this in their name, beside the first, by which all are judged.
    """
    compiler_caches.use_trusted()
    network, _ = weights_files.load(weights)
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    makers: dict[str, Callable[[], Restore]] = {
        EAGER: lambda: _torch(network, plain=True),
        "torch eager, our C kernel": lambda: _torch(network),
        "torch.compile, our C kernel": lambda: _torch(_compiled(network)),
        PLAIN: lambda: _plain(zoo.find(model)[0]),
        "plain ONNX Runtime, GridSample": lambda: _plain(zoo.find(model)[-1]),
        "edge_restore, onnxruntime": lambda: _ours("onnxruntime", model, height, width),
        "edge_restore, openvino": lambda: _ours("openvino", model, height, width),
        "edge_restore, openvino-bf16": lambda: _ours("openvino-bf16", model, height, width),
    }
    if len(zoo.find(model)) == 1:  # nothing is deformable
        del makers["plain ONNX Runtime, GridSample"], makers["torch eager, our C kernel"]
        makers["torch.compile"] = makers.pop("torch.compile, our C kernel")
    if (int8 := zoo.FOLDER / f"{model}-int8.onnx").is_file():
        makers["plain ONNX Runtime, INT8"] = lambda: _plain(int8)
    makers |= _for_a_gpu(model, network, height, width)
    found: Contenders = {}
    left_out = []
    probe = np.zeros((height, width, 3), np.uint8)
    for name, make in makers.items():
        if only not in name and name != EAGER:
            continue
        try:
            restore = make()
            restore(probe)
        except UserError as error:
            left_out.append(f"{name}: {error.found}")
        except Exception as error:  # torch.compile fails in as many ways as machines differ
            left_out.append(f"{name}: {type(error).__name__}")
        else:
            found[name] = restore
    return found, left_out


def _for_a_gpu(
    model: str, network: torch.nn.Module, height: int, width: int
) -> dict[str, Callable[[], Restore]]:
    found: dict[str, Callable[[], Restore]] = {
        "torch eager on the GPU": lambda: _torch_on_a_gpu(network)
    }
    if (zoo.FOLDER / f"{model}-plugin-fp16.onnx").is_file():
        engines = {
            "edge_restore, tensorrt": ("tensorrt", "-plugin-fp16"),
            "TensorRT, GridSample": ("tensorrt", "-gridsample-fp16"),
            "TensorRT, NVIDIA's plugin in FP32": ("tensorrt", ""),
            "edge_restore, tensorrt-rtx": ("tensorrt-rtx", "-gridsample-fp16"),
        }
        graph = "torch on the GPU, our kernel, CUDA graph"
        found["torch eager on the GPU, torchvision"] = lambda: _torch_on_a_gpu(
            network, _torchvision()
        )
    else:  # nothing is deformable
        engines = {f"edge_restore, {b}": (b, "-fp16") for b in ("tensorrt", "tensorrt-rtx")}
        graph = "torch on the GPU, CUDA graph"
    found[graph] = lambda: _graph_on_a_gpu(network, height, width)
    for name, (backend, variant) in engines.items():
        found[name] = functools.partial(_engine, backend, f"{model}{variant}", height, width)
    return found


def compare(
    found: Contenders, frame: Pixels, samples: int, seconds: float
) -> tuple[dict[str, Timing], dict[str, float]]:
    """Times of each in turns, and the PSNR of each picture against the first's."""
    pictures = {name: restore(frame) for name, restore in found.items()}
    reference = next(iter(pictures.values()))
    things = {name: (lambda restore=restore: restore(frame)) for name, restore in found.items()}
    timings = timing.measure(things, samples=samples, max_seconds=seconds)
    return timings, {name: psnr(p, reference) for name, p in pictures.items()}


def _torch(network: torch.nn.Module, *, plain: bool = False) -> Restore:
    def restore(pixels: Pixels) -> Pixels:
        without = deform_sample.switched_off() if plain else contextlib.nullcontext()
        with torch.inference_mode(), without:
            image = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
            restored = network(image.contiguous(memory_format=torch.channels_last))
            levels = (restored[0].clamp(0, 1) * 255).round().byte()
        return np.ascontiguousarray(levels.permute(1, 2, 0).numpy())

    return restore


def _on_a_gpu(network: torch.nn.Module, layer: Any = None) -> torch.nn.Module:
    """A copy in FP16, which is what engines compute in; `layer` computes its deformable ones.

    Raises:
        BackendError: there is no GPU.
    """
    if not torch.cuda.is_available():
        raise BackendError(
            "no NVIDIA GPU that torch can use", expected="one, and a torch built for it",
            hint="nothing, if there is none",
        )  # fmt: skip
    moved = copy.deepcopy(network).half().cuda()
    for module in moved.modules():
        if layer is not None and isinstance(module, DeformConv2d):
            module.forward = functools.partial(layer, module)  # type: ignore[method-assign]
    return moved


def _compiled(network: torch.nn.Module) -> torch.nn.Module:
    compiled: Any = torch.compile(network, dynamic=False)
    return compiled  # type: ignore[no-any-return]


def _levels(network: torch.nn.Module, pixels: Tensor) -> Tensor:
    """(H, W, 3) uint8 -> the same, restored; all on the GPU."""
    with torch.inference_mode():
        image = pixels.permute(2, 0, 1)[None].half() / 255
        restored = network(image.contiguous(memory_format=torch.channels_last))
        levels: Tensor = (restored[0].clamp(0, 1) * 255).round().byte()
        return levels.permute(1, 2, 0).contiguous()


def _torch_on_a_gpu(network: torch.nn.Module, layer: Any = None) -> Restore:
    moved = _on_a_gpu(network, layer)

    def restore(pixels: Pixels) -> Pixels:
        with deform_sample.switched_off():
            levels = _levels(moved, torch.from_numpy(pixels).cuda())
        return levels.cpu().numpy()  # waits for the GPU

    return restore


def _graph_on_a_gpu(network: torch.nn.Module, height: int, width: int) -> Restore:
    """One launch for all kernels, and pinned memory: as fast as torch's own kernels get."""
    moved = _on_a_gpu(network, _with_our_kernel)
    host = torch.zeros(height, width, 3, dtype=torch.uint8).pin_memory()
    image = host.cuda()
    with torch.cuda.stream(torch.cuda.Stream()):  # type: ignore[no-untyped-call]  # compiles, and chooses algorithms
        for _ in range(3):
            _levels(moved, image)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        restored = _levels(moved, image)

    def restore(pixels: Pixels) -> Pixels:
        host.copy_(torch.from_numpy(pixels))
        image.copy_(host, non_blocking=True)
        graph.replay()
        host.copy_(restored, non_blocking=True)
        torch.cuda.synchronize()
        return host.numpy().copy()

    return restore


def _torchvision() -> Any:
    from torchvision.ops import deform_conv2d

    return functools.partial(_torchvisions, deform_conv2d)


def _torchvisions(
    convolve: Any, layer: DeformConv2d, image: Tensor, offset: Tensor, mask: Tensor
) -> Tensor:
    restored: Tensor = convolve(
        image, offset, layer.weight, layer.bias, layer.stride, layer.padding, layer.dilation, mask
    )
    return restored


def _with_our_kernel(layer: DeformConv2d, image: Tensor, offset: Tensor, mask: Tensor) -> Tensor:
    """Compiled by Triton on the spot; an engine's plugin does not pack its tensors anew."""
    from export.deform_conv.launch import deform_conv2d

    return deform_conv2d(
        image, offset, mask, layer.weight, layer.bias, stride=layer.stride, padding=layer.padding,
        dilation=layer.dilation, groups=layer.groups, offset_groups=layer.offset_groups,
    )  # fmt: skip


def _engine(backend: str, name: str, height: int, width: int) -> Restore:
    file = zoo.FOLDER / f"{name}.onnx"
    # Out of the zoo, because of a model there the backend takes the variant that it likes best.
    with tempfile.TemporaryDirectory(prefix="contenders-") as folder, temporary(folder):
        for each in (file, card_path(file)):
            shutil.copy(each, folder)
        restorer = backends.create(backend, [Path(folder, file.name)])
        restorer.open(height, width)
    return lambda pixels: restore_one(restorer, pixels)


def _plain(model: Path) -> Restore:
    """ONNX Runtime as its documentation opens it: no options; padded to what the network takes."""
    onnxruntime = optional.require("onnxruntime", needed_for="comparing with it")
    read = Model.read(model)
    multiple = read.card.multiple
    session = onnxruntime.InferenceSession(read.content, providers=["CPUExecutionProvider"])

    def restore(pixels: Pixels) -> Pixels:
        padded = pad_to_multiple(pixels, multiple)
        restored: Pixels = session.run(None, {"image": padded[None]})[0][0]
        return restored[: pixels.shape[0], : pixels.shape[1]]

    return restore


def _ours(backend: str, model: str, height: int, width: int) -> Restore:
    restorer = backends.on_the_cpu(backend, zoo.find(model))
    restorer.open(height, width)
    return lambda pixels: restore_one(restorer, pixels)


def main(arguments: list[str] | None = None) -> int:
    """Time everything and print the tables; 0, or 2 with a message."""
    p = argparse.ArgumentParser(prog="python -m export.contenders", description=DESCRIPTION)
    p.add_argument("model", nargs="?", default="svdn", help="a name of the zoo")
    p.add_argument("--weights", type=file_path, help="default: train/released/MODEL.safetensors")
    p.add_argument("--size", default="360x640", metavar="HxW")
    p.add_argument("--samples", type=int, default=timing.FEWEST)
    p.add_argument("--seconds", type=float, default=60.0, help="for each contender")
    p.add_argument("--only", default="", metavar="TEXT", help="of what has TEXT in its name")
    p.add_argument("--markdown", action="store_true")
    args = p.parse_args(arguments)
    return process.run("contenders", lambda: _run(args), kept="nothing was written")


def _run(args: argparse.Namespace) -> None:
    height, width = frame_size.parse(args.size)
    weights = args.weights or Path("train/released") / f"{args.model}.safetensors"
    found, left_out = contenders(args.model, weights, height, width, args.only)
    timings, exactness = compare(found, photo.scaled(height, width), args.samples, args.seconds)
    first = [name for name in (EAGER, PLAIN) if name in timings]
    result: tables.Table = table(timings, exactness, first)
    print(tables.as_markdown(result) if args.markdown else tables.as_text(result))
    for reason in left_out:
        print(f"not run: {reason}")
    machine = this_machine()
    counted = len(next(iter(timings.values())).samples_ms)
    print(
        f"{args.model}, {width}x{height}, 8-bit frames in and out; "
        f"{', '.join((*machine.gpus, machine.cpu))}, {machine.cores} "
        f"cores; p50 of {counted} frames each, in {timing.ROUNDS} rounds that took turns"
    )
    noisy = [name for name, one in timings.items() if one.noisy]
    if noisy:
        print(f"too noisy, measure again: {'; '.join(noisy)}")


def table(
    timings: dict[str, Timing], exactness: dict[str, float], against: list[str]
) -> tables.Table:
    """A row for each contender: its time, and how many times faster it is than some of them."""
    header = ("contender", "p50 ms", *(f"faster than {name}" for name in against), "PSNR dB")
    rows: list[tuple[str, ...]] = []
    for name, one in timings.items():
        ratios = [timing.ratio_interval(timings[other], one) for other in against]
        rows.append(
            (
                name,
                cells.milliseconds(one.median_ms),
                *(f"{ratio:.2f} ({low:.2f} to {high:.2f})" for ratio, low, high in ratios),
                cells.decibels(exactness[name]),
            )
        )
    return header, rows, 1


if __name__ == "__main__":
    process.finish(main)
