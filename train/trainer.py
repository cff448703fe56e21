"""The training loop."""

from __future__ import annotations

import contextlib
import copy
import ctypes
import math
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edge_restore.errors import ModelError, UserError
from edge_restore.media.metrics import finite_psnr, ssim
from edge_restore.progress import Progress
from edge_restore.storage.files import make_folder
from train import checkpoint as checkpoints
from train import networks, optimiser
from train.blur import Exposure
from train.board import Board
from train.guidance import MotionGuide
from train.losses import TrainingLoss
from train.pack import Pack
from train.patches import Ahead, PatchSource, validation_set
from train.precision import multiplies_in_bfloat16
from train.recipe import Recipe, as_table
from train.schedule import offset_factor, rate
from train.workers import Workers


class TrainingDiverged(UserError):
    """The loss, or what is restored, is not a finite number any more; `step` says since when."""

    step = 0


class OutputNotFinite(ModelError):
    """A network restores pictures of numbers that are not finite."""

    def __init__(self) -> None:
        super().__init__(
            "the network's output is not finite",
            expected="a restored picture",
            mend="train it anew with a smaller rate, or take other weights",
        )


def _diverged(what: str, step: int, checkpoint: Path) -> TrainingDiverged:
    kept = "nothing was kept: it had no checkpoint yet"
    if checkpoint.exists():
        kept = f"the last checkpoint, '{checkpoint}', is untouched"
    error = TrainingDiverged(
        f"the training diverged: {what} at step {step}; {kept}",
        expected="a finite loss",
        mend="choose a smaller optimiser.rate, a smaller optimiser.clip above 0 or a longer "
        "optimiser.warmup, and train in another --out folder",
    )
    error.step = step
    return error


@dataclass(frozen=True)
class Score:
    """Mean PSNR in dB and SSIM over 8-bit RGB pictures, of the blurred input and restored."""

    psnr_input: float
    ssim_input: float
    psnr: float
    ssim: float
    images: int


@dataclass(frozen=True)
class Outcome:
    """Where a training stands.

    Attributes:
        weights: averaged; the last ones or the best ones, as the recipe's [validation] says.
        kept: the step that they were taken after.
        steps: taken, in all calls together.
        minutes: spent, likewise.
        score: of `weights`.
        finished: the recipe's last step is done.
        exploded: what the last step's weights restore is worse than an even gray picture, as
            that of a network is whose numbers are huge, but finite.
    """

    weights: dict[str, Tensor]
    kept: int
    steps: int
    minutes: float
    score: Score
    finished: bool
    exploded: bool = False


def keep_freed_memory() -> None:
    """Ask glibc not to give large freed blocks back to the kernel.

    The deformable layers allocate the same 100 MB blocks every step; faulting their pages in anew
    costs a fifth of the step on a CPU. Elsewhere than on glibc nothing happens.
    """
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        m_trim_threshold, m_mmap_threshold = -1, -3
        libc.mallopt(m_mmap_threshold, 1 << 30)
        libc.mallopt(m_trim_threshold, ctypes.c_int(-1))


def to_pixels(image: Tensor) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """(3, H, W) in [0, 1] -> (H, W, 3) uint8, rounded."""
    return (image.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()


def evaluate(network: nn.Module, pictures: Exposure, device: torch.device) -> Score:
    """Restore pictures one by one and score them on 8-bit RGB; PSNR by `finite_psnr`.

    Raises:
        OutputNotFinite: a restored picture is not of finite numbers.
    """
    network.eval()
    rows = []
    with torch.no_grad():
        for blurred, sharp in zip(pictures.blurred, pictures.sharp, strict=True):
            restored = network(blurred[None].to(device))[0].float()
            if not restored.isfinite().all():
                raise OutputNotFinite()
            truth = to_pixels(sharp)
            before_and_after = to_pixels(blurred), to_pixels(restored)
            rows.append([m(p, truth) for p in before_and_after for m in (finite_psnr, ssim)])
    network.train()
    return Score(*(float(v) for v in np.mean(rows, axis=0)), images=len(rows))


def exploded(score: Score, pictures: Exposure) -> bool:
    """Whether pictures of this score are worse than even gray ones, and those they come from not.

    Huge numbers make pixels black or white with no regard to the truth, which is worse than gray.
    """
    truths = [to_pixels(sharp) for sharp in pictures.sharp]
    gray = float(np.mean([finite_psnr(np.full_like(t, 128), t) for t in truths]))
    return score.psnr < gray < score.psnr_input


def examples(
    network: nn.Module, pictures: Exposure, device: torch.device, count: int
) -> list[tuple[Tensor, Tensor, Tensor]]:
    """The first pictures as (blurred, restored, sharp), each (3, H, W) in [0, 1]."""
    network.eval()
    with torch.no_grad():
        restored = [network(b[None].to(device))[0].float() for b in pictures.blurred[:count]]
    network.train()
    return list(zip(pictures.blurred, restored, pictures.sharp, strict=False))


def _better(score: Score, best: dict[str, Any] | None, keep: str) -> bool:
    """Whether `score` beats the kept one in what the recipe keeps the best of."""
    measures = ("psnr", "ssim") if keep == "both" else (keep,)
    return best is None or all(getattr(score, m) > best["score"][m] for m in measures)


def train(
    recipe: Recipe, pack: Pack, folder: Path, *, device: torch.device,
    max_minutes: float = math.inf, init: dict[str, Tensor] | None = None,
    workers: Workers | None = None, tensorboard: bool = False,
    stopped: Callable[[], bool] = lambda: False,
    prepare: Callable[[nn.Module], None] = lambda _: None,
) -> Outcome:  # fmt: skip
    """Train until the recipe's last step, the end of the time, or a stop, whichever comes first.

    Args:
        recipe: what to train and how.
        pack: the sharp pictures.
        folder: of the run: a checkpoint is kept here, and resumed from when there is one.
        device: to train on; in bfloat16 where it is fast.
        max_minutes: of this call; then a checkpoint is written and the outcome returned.
        init: weights to start from, when there is no checkpoint.
        workers: the processes that train together; this one alone by default.
        tensorboard: write curves and pictures to folder/tensorboard.
        stopped: asked after every step; True ends the training as the end of the time does.
        prepare: done to the network before anything else, after `init`; it must leave the names of
            the parameters alone (calibration/qat.py).

    Raises:
        DataError: the pack or the checkpoint does not fit the recipe.
        RecipeError, ModelError: the recipe's loss does not fit the network or its VGG file.
        TrainingDiverged: the loss stopped being finite; the checkpoint before it stays.
        DependencyError: tensorboard is asked for and not installed.
    """
    began = time.monotonic()
    workers = workers or Workers("cpu")
    keep_freed_memory()
    # Vanishing gradients become subnormal numbers, on which a CPU is ten times slower.
    torch.set_flush_denormal(True)
    torch.backends.cudnn.benchmark = True  # crops change their size rarely
    torch.manual_seed(recipe.seed)
    make_folder(folder)
    o, keep = recipe.optimiser, recipe.validation.keep
    network = networks.create(recipe.network, **recipe.arguments).to(device)
    in_bfloat16 = multiplies_in_bfloat16(device)
    # In float32 some of oneDNN's weight gradients take up to five times as long with channels last.
    layout = torch.channels_last if in_bfloat16 else torch.contiguous_format
    network = network.to(memory_format=layout)  # type: ignore[call-overload]
    if init is not None:
        network.load_state_dict(init)
    prepare(network)
    average = copy.deepcopy(network).requires_grad_(False)
    guide = MotionGuide(network).to(device) if recipe.loss.motion else None
    criterion = TrainingLoss(network, recipe.loss).to(device)
    beside = nn.ModuleList([guide, criterion] if guide else [criterion])
    optimisers = optimiser.make(network, beside, o)
    batches = (
        Ahead(pack, recipe, device, workers.rank, workers.count)
        if device.type == "cuda"
        else PatchSource(pack, recipe, device, workers.rank)
    )
    validation = validation_set(pack, recipe)
    averaged, parameters = list(average.parameters()), list(network.parameters())
    trained = [*parameters, *beside.parameters()]
    step, minutes_before = 0, 0.0
    best: dict[str, Any] | None = None
    first = recipe.loss.motion_first if guide else 0
    checkpoint = folder / checkpoints.NAME
    state = checkpoints.load(checkpoint, recipe, pack, device, workers.count)
    if state is not None:
        with checkpoints.fitting(checkpoint):
            network.load_state_dict(state["network"])
            average.load_state_dict(state["average"])
            for each, theirs in zip(optimisers, state["optimisers"], strict=True):
                each.load_state_dict(theirs)
                checkpoints.check_moments(each)
            if guide:
                guide.load_state_dict(state["guide"])
            criterion.load_state_dict(state.get("loss", {}))
            batches.restore(state["sources"][workers.rank])
            step, minutes_before, best = checkpoints.place(state, network, o.steps)
            if best is not None:
                Score(**best["score"])
    board = Board(folder / "tensorboard", step) if tensorboard and workers.first else None

    def minutes() -> float:
        return minutes_before + (time.monotonic() - began) / 60

    def save() -> None:
        sources = workers.gather(batches.state())
        if workers.first:
            checkpoints.save(checkpoint, {
                "recipe": as_table(recipe), "pack": pack.sha256, "step": step,
                "minutes": minutes(), "network": network.state_dict(),
                "average": average.state_dict(), "best": best, "sources": sources,
                "optimisers": [each.state_dict() for each in optimisers],
                "guide": guide.state_dict() if guide else None, "loss": criterion.state_dict(),
            })  # fmt: skip

    def validate() -> Score:
        nonlocal best
        # Before anything is saved: a checkpoint of such weights could not be trained on.
        broken = [k for k, v in network.state_dict().items() if not v.isfinite().all()]
        if broken:
            raise _diverged(f"the weights '{broken[0]}' are not finite", step, checkpoint)
        try:
            score = evaluate(average, validation, device)
        except OutputNotFinite as error:
            raise _diverged("the network's output is not finite", step, checkpoint) from error
        if keep != "last" and _better(score, best, keep):
            weights = {k: v.clone() for k, v in average.state_dict().items()}
            best = {"step": step, "score": asdict(score), "weights": weights}
        if not workers.first:
            return score
        print(
            f"step {step:>7}  {minutes():7.1f} min  loss {smooth:.5f}  rate {rate(step, o):.2e}  "
            f"PSNR {score.psnr:.3f} dB ({score.psnr - score.psnr_input:+.3f})  "
            f"SSIM {score.ssim:.4f}",
            flush=True,
        )
        if board:
            board.scalars(step, {"loss": smooth, "rate": rate(step, o)})
            board.scalars(step, {"PSNR": score.psnr, "SSIM": score.ssim})
            board.pictures(step, examples(average, validation, device, 4))
        return score

    smooth = math.nan
    score, scored = validate(), step
    late = max_minutes <= 0
    with (
        contextlib.closing(batches),
        Progress(o.steps, recipe.network, unit="step", stream=sys.stderr, done=step)
        if workers.first
        else contextlib.nullcontext() as progress,
    ):
        while step < o.steps and not late:
            blurred, sharp, flows = batches.next(step)
            if guide and step == first > 0:
                guide.lay_points(network)
                average.load_state_dict(network.state_dict())
            for group in (group for each in optimisers for group in each.param_groups):
                group["lr"] = rate(step, o, again=first)
                if group.get("role") == optimiser.OFFSETS:
                    group["lr"] *= offset_factor(step - first, o)
            loss = blurred.new_zeros(())
            with torch.autocast(device.type, torch.bfloat16, enabled=in_bfloat16):
                image = blurred.contiguous(memory_format=layout)
                if guide and step < first:
                    guide.look(network, image)
                else:
                    loss = criterion(network(image), blurred, sharp, flows)
            if guide:
                loss = loss + recipe.loss.motion * guide.loss(flows)
            for each in optimisers:
                each.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            workers.average_gradients(trained)
            if o.clip:
                nn.utils.clip_grad_norm_(parameters, o.clip, foreach=True)
            out_of_time = (time.monotonic() - began) / 60 >= max_minutes
            value, late = workers.mean([loss.item(), out_of_time or stopped()], device)
            if not math.isfinite(value):
                batch = folder / f"diverged{workers.rank or ''}.pt"
                checkpoints.save(batch, {"step": step, "blurred": blurred, "sharp": sharp})
                raise _diverged(
                    f"the loss is {value}, of the batch in '{batch}',", step, checkpoint
                )
            for each in optimisers:
                each.step()
            step += 1
            smooth = value if math.isnan(smooth) else 0.99 * smooth + 0.01 * value
            # A young average follows closely, so that the start is forgotten.
            age = step - first if step > first else step
            decay = min(o.ema, (1 + age) / (10 + age))
            with torch.no_grad():
                torch._foreach_lerp_(averaged, parameters, 1 - decay)
            if progress:
                progress.advance(1, f"loss {smooth:.4f}")
            if recipe.validation.due(step):
                score, scored = validate(), step
                save()
    if step != scored:
        score = validate()
    save()
    if board:
        board.close()
    lost = exploded(score, validation)
    last = {"step": step, "score": asdict(score), "weights": average.state_dict()}
    kept = best or last
    score = Score(**kept["score"])
    return Outcome(kept["weights"], kept["step"], step, minutes(), score, step >= o.steps, lost)


def machine(device: torch.device) -> str:
    """The machine in words, for a weights card."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"{platform.machine()} CPU, {threads} thread{'' if threads == 1 else 's'}"
