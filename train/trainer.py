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
            hint="train it anew with a smaller rate, or take other weights",
        )


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
    psnr_input, ssim_input, psnr_output, ssim_output = (float(v) for v in np.mean(rows, axis=0))
    return Score(psnr_input, ssim_input, psnr_output, ssim_output, len(rows))


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


@dataclass(frozen=True)
class TrainOptions:
    """How a training runs on this machine, apart from what it trains.

    Attributes:
        device: to train on; in bfloat16 where it is fast.
        max_minutes: of this call; then a checkpoint is written and the outcome returned.
        init: weights to start from, when there is no checkpoint.
        workers: the processes that train together; this one alone by default.
        tensorboard: write curves and pictures to folder/tensorboard.
        stopped: asked after every step; True ends the training as the end of the time does.
        prepare: done to the network before anything else, after `init`; it must leave the names of
            the parameters alone (calibration/qat.py).
    """

    device: torch.device
    max_minutes: float = math.inf
    init: dict[str, Tensor] | None = None
    workers: Workers | None = None
    tensorboard: bool = False
    stopped: Callable[[], bool] = lambda: False
    prepare: Callable[[nn.Module], None] = lambda _: None


def train(recipe: Recipe, pack: Pack, folder: Path, options: TrainOptions) -> Outcome:
    """Train until the recipe's last step, the end of the time, or a stop, whichever comes first.

    Args:
        recipe: what to train and how.
        pack: the sharp pictures.
        folder: of the run: a checkpoint is kept here, and resumed from when there is one.
        options: how it runs here.

    Raises:
        DataError: the pack or the checkpoint does not fit the recipe.
        RecipeError, ModelError: the recipe's loss does not fit the network or its VGG file.
        TrainingDiverged: the loss stopped being finite; the checkpoint before it stays.
        DependencyError: tensorboard is asked for and not installed.
    """
    return Trainer(recipe, pack, folder, options).run()


class Trainer:
    """A training: the network, its average, the optimizers, and how far they have come.

    Args: as `train`.
    """

    def __init__(self, recipe: Recipe, pack: Pack, folder: Path, options: TrainOptions) -> None:
        self._started = time.monotonic()
        self._recipe, self._pack, self._folder, self._options = recipe, pack, folder, options
        self._device = options.device
        self._workers = options.workers or Workers("cpu")
        self._checkpoint = folder / checkpoints.NAME
        _set_up_torch(recipe.seed)
        make_folder(folder)
        self._set_up_network()
        self._optimisers = optimiser.make(self._network, self._beside, recipe.optimiser)
        rank, count = self._workers.rank, self._workers.count
        self._batches = (
            Ahead(pack, recipe, self._device, rank, count)
            if self._device.type == "cuda"
            else PatchSource(pack, recipe, self._device, rank)
        )
        self._validation = validation_set(pack, recipe)
        self._step, self._minutes_before = 0, 0.0
        self._best: dict[str, Any] | None = None
        self._smooth = math.nan  # the loss, averaged over about a hundred steps
        self._resume()
        tensorboard = options.tensorboard and self._workers.first
        self._board = Board(folder / "tensorboard", self._step) if tensorboard else None

    def _set_up_network(self) -> None:
        """The network, its average, and the losses with the parameters that they train beside."""
        recipe, device = self._recipe, self._device
        network = networks.create(recipe.network, **recipe.arguments).to(device)
        self._in_bfloat16 = multiplies_in_bfloat16(device)
        # In float32 some of oneDNN's weight gradients take up to five times as long with channels
        # last.
        self._layout = torch.channels_last if self._in_bfloat16 else torch.contiguous_format
        self._network = network.to(memory_format=self._layout)  # type: ignore[call-overload]
        if self._options.init is not None:
            self._network.load_state_dict(self._options.init)
        self._options.prepare(self._network)
        self._average = copy.deepcopy(self._network).requires_grad_(False)
        self._guide = MotionGuide(self._network).to(device) if recipe.loss.motion else None
        self._criterion = TrainingLoss(self._network, recipe.loss).to(device)
        both = [self._guide, self._criterion] if self._guide else [self._criterion]
        self._beside = nn.ModuleList(both)
        self._averaged = list(self._average.parameters())
        self._parameters = list(self._network.parameters())
        self._trained = [*self._parameters, *self._beside.parameters()]
        self._guided_steps = recipe.loss.motion_first if self._guide else 0

    def _resume(self) -> None:
        """Go on from the folder's checkpoint, when there is one."""
        rank, count = self._workers.rank, self._workers.count
        state = checkpoints.load(self._checkpoint, self._recipe, self._pack, self._device, count)
        if state is None:
            return
        with checkpoints.fitting(self._checkpoint):
            self._network.load_state_dict(state["network"])
            self._average.load_state_dict(state["average"])
            for each, theirs in zip(self._optimisers, state["optimisers"], strict=True):
                each.load_state_dict(theirs)
                checkpoints.check_moments(each)
            if self._guide:
                self._guide.load_state_dict(state["guide"])
            self._criterion.load_state_dict(state.get("loss", {}))
            self._batches.restore(state["sources"][rank])
            self._step, self._minutes_before, self._best = checkpoints.place(
                state, self._network, self._recipe.optimiser.steps
            )
            if self._best is not None:
                Score(**self._best["score"])

    def run(self) -> Outcome:
        """Train; see `train`."""
        steps = self._recipe.optimiser.steps
        score, scored = self._validate(), self._step
        late = self._options.max_minutes <= 0
        with contextlib.closing(self._batches), self._progress() as progress:
            while self._step < steps and not late:
                late = self._take_step()
                if progress:
                    progress.advance(1, f"loss {self._smooth:.4f}")
                if self._recipe.validation.due(self._step):
                    score, scored = self._validate(), self._step
                    self._save()
        if self._step != scored:
            score = self._validate()
        self._save()
        if self._board:
            self._board.close()
        weights = self._average.state_dict()
        last = {"step": self._step, "score": asdict(score), "weights": weights}
        kept = self._best or last
        return Outcome(
            kept["weights"],
            kept["step"],
            self._step,
            self._minutes(),
            Score(**kept["score"]),
            self._step >= steps,
            exploded(score, self._validation),
        )

    def _progress(self) -> contextlib.AbstractContextManager[Progress | None]:
        if not self._workers.first:
            return contextlib.nullcontext()
        return Progress(
            self._recipe.optimiser.steps,
            self._recipe.network,
            unit="step",
            stream=sys.stderr,
            done=self._step,
        )

    def _minutes(self) -> float:
        """Spent in all calls together."""
        return self._minutes_before + self._minutes_here()

    def _minutes_here(self) -> float:
        return (time.monotonic() - self._started) / 60

    def _take_step(self) -> bool:
        """One step of the optimizers; whether it is to be the last of this call.

        Raises:
            TrainingDiverged: the loss is not finite; the batch is written to the run's folder.
        """
        o, first = self._recipe.optimiser, self._guided_steps
        blurred, sharp, flows = self._batches.next(self._step)
        if self._guide and self._step == first > 0:
            self._guide.lay_points(self._network)
            self._average.load_state_dict(self._network.state_dict())
        self._set_rates()
        loss = self._loss(blurred, sharp, flows)
        for each in self._optimisers:
            each.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self._workers.average_gradients(self._trained)
        if o.clip:
            nn.utils.clip_grad_norm_(self._parameters, o.clip, foreach=True)
        out_of_time = self._minutes_here() >= self._options.max_minutes
        value, late = self._workers.mean(
            [loss.item(), out_of_time or self._options.stopped()], self._device
        )
        if not math.isfinite(value):
            batch = self._folder / f"diverged{self._workers.rank or ''}.pt"
            checkpoints.save(batch, {"step": self._step, "blurred": blurred, "sharp": sharp})
            raise self._diverged(f"the loss is {value}, of the batch in '{batch}',")
        for each in self._optimisers:
            each.step()
        self._step += 1
        self._smooth = value if math.isnan(self._smooth) else 0.99 * self._smooth + 0.01 * value
        self._follow()
        return bool(late)

    def _set_rates(self) -> None:
        o, first = self._recipe.optimiser, self._guided_steps
        for group in (group for each in self._optimisers for group in each.param_groups):
            group["lr"] = rate(self._step, o, again=first)
            if group.get("role") == optimiser.OFFSETS:
                group["lr"] *= offset_factor(self._step - first, o)

    def _loss(self, blurred: Tensor, sharp: Tensor, flows: Any) -> Tensor:
        loss = blurred.new_zeros(())
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._in_bfloat16):
            image = blurred.contiguous(memory_format=self._layout)
            if self._guide and self._step < self._guided_steps:
                self._guide.look(self._network, image)
            else:
                loss = self._criterion(self._network(image), blurred, sharp, flows)
        if self._guide:
            loss = loss + self._recipe.loss.motion * self._guide.loss(flows)
        return loss

    def _follow(self) -> None:
        """Move the average towards the network."""
        # A young average follows closely, so that the start is forgotten.
        first = self._guided_steps
        age = self._step - first if self._step > first else self._step
        decay = min(self._recipe.optimiser.ema, (1 + age) / (10 + age))
        with torch.no_grad():
            torch._foreach_lerp_(self._averaged, self._parameters, 1 - decay)

    def _validate(self) -> Score:
        """Score the average, keep it when it is the best, and say so.

        Raises:
            TrainingDiverged: weights or restored pictures are not finite.
        """
        # Before anything is saved: a checkpoint of such weights could not be trained on.
        weights = self._network.state_dict()
        broken = [key for key, value in weights.items() if not value.isfinite().all()]
        if broken:
            raise self._diverged(f"the weights '{broken[0]}' are not finite")
        try:
            score = evaluate(self._average, self._validation, self._device)
        except OutputNotFinite as error:
            raise self._diverged("the network's output is not finite") from error
        keep = self._recipe.validation.keep
        if keep != "last" and _better(score, self._best, keep):
            kept = {k: v.clone() for k, v in self._average.state_dict().items()}
            self._best = {"step": self._step, "score": asdict(score), "weights": kept}
        if self._workers.first:
            self._report(score)
        return score

    def _report(self, score: Score) -> None:
        now = rate(self._step, self._recipe.optimiser)
        print(
            f"step {self._step:>7}  {self._minutes():7.1f} min  loss {self._smooth:.5f}  "
            f"rate {now:.2e}  PSNR {score.psnr:.3f} dB ({score.psnr - score.psnr_input:+.3f})  "
            f"SSIM {score.ssim:.4f}",
            flush=True,
        )
        if self._board:
            self._board.scalars(self._step, {"loss": self._smooth, "rate": now})
            self._board.scalars(self._step, {"PSNR": score.psnr, "SSIM": score.ssim})
            shown = examples(self._average, self._validation, self._device, 4)
            self._board.pictures(self._step, shown)

    def _save(self) -> None:
        """Write the checkpoint, in one process."""
        sources = self._workers.gather(self._batches.state())
        if not self._workers.first:
            return
        state = {
            "recipe": as_table(self._recipe),
            "pack": self._pack.sha256,
            "step": self._step,
            "minutes": self._minutes(),
            "network": self._network.state_dict(),
            "average": self._average.state_dict(),
            "best": self._best,
            "sources": sources,
            "optimisers": [each.state_dict() for each in self._optimisers],
            "guide": self._guide.state_dict() if self._guide else None,
            "loss": self._criterion.state_dict(),
        }
        checkpoints.save(self._checkpoint, state)

    def _diverged(self, what: str) -> TrainingDiverged:
        kept = "nothing was kept: it had no checkpoint yet"
        if self._checkpoint.exists():
            kept = f"the last checkpoint, '{self._checkpoint}', is untouched"
        error = TrainingDiverged(
            f"the training diverged: {what} at step {self._step}; {kept}",
            expected="a finite loss",
            hint="choose a smaller optimiser.rate, a smaller optimiser.clip above 0 or a longer "
            "optimiser.warmup, and train in another --out folder",
        )
        error.step = self._step
        return error


def _set_up_torch(seed: int) -> None:
    keep_freed_memory()
    # Vanishing gradients become subnormal numbers, on which a CPU is ten times slower.
    torch.set_flush_denormal(True)
    torch.backends.cudnn.benchmark = True  # crops change their size rarely
    torch.manual_seed(seed)


def machine(device: torch.device) -> str:
    """The machine in words, for a weights card."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"{platform.machine()} CPU, {threads} thread{'' if threads == 1 else 's'}"
