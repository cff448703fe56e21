"""Batches: random patches of a pack, augmented; sharp ones are degraded on the training device."""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from threading import Barrier
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from edge_restore.errors import DataError
from train.blur import BlurModel, Exposure
from train.pack import Pack, Picture
from train.recipe import Recipe
from train.soften import defocused, subsampled
from train.tiling import striped, tiled

DETAIL = 5.0
"""Mean difference between neighbours, in levels of 255, from which a patch counts as detailed."""

AHEAD = 8
"""Sources that make batches for a GPU. A training continues with as many as it began with."""

Cut = tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]
"""Patches of sharp pictures (N, side, side, 3), with the margin for the blur, and of real pairs
(M, 2, side, side, 3); N + M is the batch."""

Views = tuple[Picture, ...]
"""Pictures of one scene and one size; the last one is sharp."""


def _usable(scenes: Sequence[Views], side: int, split: str, margin: int) -> list[Views]:
    """The scenes that are large enough; none when there are none at all.

    Raises:
        DataError: there are some, and all are too small.
    """
    usable = [views for views in scenes if min(views[-1].shape[:2]) >= side]
    if scenes and not usable:
        room = ": the patch and its margin for the blur" if margin else ""
        raise DataError(
            f"the pack has no {split} picture of {side} pixels or more ({len(scenes)} smaller)",
            expected=f"both sides of {side} pixels or more{room}",
            hint="pack larger pictures, or choose a smaller patch in the recipe",
        )
    return usable


def _nothing(split: str) -> DataError:
    return DataError(
        f"the pack has no {split} picture",
        expected="pictures or pairs in both splits of the pack",
        hint="pack more of them, or name some with 'python -m train pack --validation'",
    )


def _area(scenes: Sequence[Views]) -> npt.NDArray[np.float64]:
    return np.array([v[-1].shape[0] * v[-1].shape[1] for v in scenes], dtype=np.float64)


def _draw(
    scenes: Sequence[Views], count: int, side: int, random: np.random.Generator,
    zoom: float = 1.0, smooth: float = 0.0,
) -> npt.NDArray[np.uint8]:  # fmt: skip
    """(count, views, side, side, 3) uint8, drawn by the pictures' areas.

    Sky, paper and defocus teach a deblurring network little: of up to four draws the first with
    some detail in the sharp view is taken, but for a share `smooth`, of which the first is.
    """
    areas = _area(scenes)
    patches = np.empty((count, len(scenes[0]), side, side, 3), np.uint8)
    for i in range(count):
        draws = 1 if smooth and random.random() < smooth else 4
        for _ in range(draws):
            views = scenes[random.choice(len(scenes), p=areas / areas.sum())]
            height, width = _extent(views[-1].shape[:2], side, zoom, random)
            y = random.integers(0, views[-1].shape[0] - height + 1)
            x = random.integers(0, views[-1].shape[1] - width + 1)
            for patch, view in zip(patches[i], views, strict=True):
                patch[:] = _resized(view[y : y + height, x : x + width], side)
            if np.abs(np.diff(patches[i, -1, ::2].astype(np.int16), axis=1)).mean() > DETAIL:
                break
    return patches


def _extent(
    room: tuple[int, ...], side: int, zoom: float, random: np.random.Generator
) -> tuple[int, int]:
    """Height and width of what a patch shows: side / zoom to side * zoom, and what there is."""
    if zoom == 1:
        return side, side
    factors = zoom ** random.uniform(-1.0, 1.0, 2)
    height, width = (
        min(max(round(side * factor), 1), most) for factor, most in zip(factors, room, strict=True)
    )
    return height, width


def _resized(view: Picture, side: int) -> Picture:
    """(H, W, 3) uint8 as (side, side, 3): bicubic, of as many pixels as become one."""
    if view.shape[:2] == (side, side):
        return view
    planes = torch.from_numpy(np.array(view, order="C")).permute(2, 0, 1)[None]
    planes = F.interpolate(planes, (side, side), mode="bicubic", antialias=True)
    resized: Picture = planes[0].permute(1, 2, 0).numpy()
    return resized


def _turned(patch: npt.NDArray[np.uint8], random: np.random.Generator) -> npt.NDArray[np.uint8]:
    """All views (views, side, side, 3) flipped, rotated and with permuted channels alike.

    The augmentation of SVDN, section 4.2.
    """
    turned = np.rot90(patch, int(random.integers(4)), axes=(1, 2))
    turned = turned[:, :, :: random.choice((-1, 1))]
    return np.asarray(turned[..., random.permutation(3)])


def _tensor(patches: npt.NDArray[np.uint8], device: torch.device) -> Tensor:
    """(..., side, side, 3) uint8 -> (..., 3, side, side) float32 in [0, 1]."""
    return torch.from_numpy(patches).to(device).movedim(-1, -3).float() / 255


def _real(patches: npt.NDArray[np.uint8], device: torch.device) -> Exposure:
    """Patches (count, 2, side, side, 3) of real pairs; nobody knows their flows, which are 0."""
    both = _tensor(patches, device)
    flows = both.new_zeros(len(both), 2, 2, *both.shape[-2:])
    return Exposure(both[:, 0], both[:, 1], flows)


def _joined(parts: list[Exposure]) -> Exposure:
    if len(parts) == 1:
        return parts[0]
    return Exposure(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))


class PatchSource:
    """Endless training batches; its randomness can be saved and restored with a checkpoint.

    Patches of sharp pictures are degraded as the recipe says; patches of real pairs come as they
    are. Where a pack has both, each patch is from either with the chance of its share of pixels.
    """

    def __init__(self, pack: Pack, recipe: Recipe, device: torch.device, rank: int = 0) -> None:
        """Processes of different `rank` draw differently.

        Raises:
            DataError: something in the pack is too small for one of the recipe's crops, or its
                pairs do not fit the recipe.
        """
        self._data, self._degradation, self._device = recipe.data, recipe.degradation, device
        largest = max(recipe.data.patch, *(crop.patch for crop in recipe.data.later), 0)
        margin = self._degradation.margin
        pictures = [(picture,) for picture in pack.train]
        self._pictures = _usable(pictures, largest + 2 * margin, "training", margin)
        self._pairs = _usable(pack.train_pairs, largest, "training", 0)
        if not self._pictures and not self._pairs:
            raise _nothing("training")
        if self._pairs and recipe.loss.motion:
            raise DataError(
                f"the pack has {len(self._pairs)} real pairs, whose motion nobody knows, "
                f"and the recipe guides by motion (loss.motion = {recipe.loss.motion})",
                expected="loss.motion = 0, or a pack of sharp pictures alone",
                hint="remove loss.motion and loss.motion_first from the recipe",
            )
        areas = float(_area(self._pairs).sum()), float(_area(self._pictures).sum())
        self._share = areas[0] / sum(areas)
        self._random = np.random.default_rng([recipe.seed, rank] if rank else recipe.seed)
        self._generator = torch.Generator(device).manual_seed(recipe.seed + 1_000_003 * rank)

    def state(self) -> dict[str, Any]:
        """The random state, for `restore`."""
        return {"numpy": self._random.bit_generator.state, "torch": self._generator.get_state()}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue where `state` was taken; the torch part only on the same kind of device."""
        self._random.bit_generator.state = state["numpy"]
        saved = state["torch"]
        if not isinstance(saved, Tensor):
            raise TypeError(f"the state of torch's random numbers is {type(saved).__name__}")
        if saved.shape == self._generator.get_state().shape:
            self._generator.set_state(saved.cpu())

    def close(self) -> None:
        """Nothing to wait for."""

    def next(self, step: int) -> Exposure:
        """The batch of a step, float32, on the device."""
        return self.degraded(self.cut(step))

    def cut(self, step: int) -> Cut:
        """The patches of a step's batch, before anything is done to them; on the CPU."""
        side, count = self._data.crop(step)
        wide = side + 2 * self._degradation.margin
        real = 0
        if self._pairs:
            real = int(self._random.binomial(count, self._share))
        sharp = np.empty((0, wide, wide, 3), np.uint8)
        pairs = np.empty((0, 2, side, side, 3), np.uint8)
        if real < count:
            sharp = self._patches(self._pictures, count - real, wide)[:, 0]
        if real:
            pairs = self._patches(self._pairs, real, side)
        return sharp, pairs

    def cut_by(self, processes: ProcessPoolExecutor, step: int) -> Cut:
        """`cut`, by one of the processes that `_begin` began; this one waits."""
        state = self._random.bit_generator.state
        patches, self._random.bit_generator.state = processes.submit(_cut, state, step).result()
        return patches

    def degraded(self, patches: Cut) -> Exposure:
        """What `cut` gave as a batch, float32, on the device."""
        sharp, pairs = patches
        parts = []
        if len(sharp):
            parts.append(self._degradation.apply(_tensor(sharp, self._device), self._generator))
        if len(pairs):
            parts.append(_real(pairs, self._device))
        return _joined(parts)

    def _patches(self, scenes: list[Views], count: int, side: int) -> npt.NDArray[np.uint8]:
        data = self._data
        patches = _draw(scenes, count, side, self._random, data.zoom, data.smooth)
        for i in range(count):
            for share, alter in (
                (data.tiled, tiled), (data.striped, partial(striped, waves=data.waves)),
                (data.defocused, defocused), (data.subsampled, subsampled),
            ):  # fmt: skip
                if share and self._random.random() < share and len(scenes[0]) == 1:
                    patches[i, 0] = alter(patches[i, 0], self._random)
            patches[i] = _turned(patches[i], self._random)
        return patches


_source: PatchSource
"""Of a process that cuts patches for others."""


def _begin(pack: Pack, recipe: Recipe) -> None:
    global _source
    torch.set_num_threads(1)
    _source = PatchSource(pack, recipe, torch.device("cpu"))


def _cut(state: Any, step: int) -> tuple[Cut, Any]:
    """The patches of `step` that follow a random state, and the state after them."""
    generator = _source._random.bit_generator
    generator.state = state
    return _source.cut(step), generator.state


class Ahead:
    """Makes the next batches on some cores while a GPU trains on the last one.

    As many sources as `AHEAD` take turns: a core may need longer for a batch than a GPU for a step.
    Patches are cut, zoomed and tiled in processes, since that is Python for the most part, and
    degraded on the device from a thread each.
    Not for training on the CPU: there a step waits for the core that makes the batch.
    """

    def __init__(
        self, pack: Pack, recipe: Recipe, device: torch.device, rank: int = 0, ranks: int = 1
    ) -> None:
        """As `PatchSource`; of `ranks` processes each has sources of its own."""
        self._sources = [
            PatchSource(pack, recipe, device, rank + ranks * number) for number in range(AHEAD)
        ]
        self._states = [source.state() for source in self._sources]
        self._batches: deque[Future[Exposure]] = deque()
        # A fork shares the pack's pages, and leaves alone what the GPU's driver has started here.
        fork = "fork" if "fork" in multiprocessing.get_all_start_methods() else None
        self._processes = ProcessPoolExecutor(
            min(AHEAD, multiprocessing.cpu_count()), multiprocessing.get_context(fork), _begin,
            (pack, recipe),
        )  # fmt: skip
        self._processes.submit(torch.get_num_threads).result()  # before there are threads
        self._pool = ThreadPoolExecutor(
            AHEAD, "patches", initializer=torch.set_num_threads, initargs=(1,)
        )
        threads, started = torch.get_num_threads(), Barrier(AHEAD)
        list(self._pool.map(lambda _: started.wait(), range(AHEAD)))
        torch.set_num_threads(threads)  # which is one number for threads that are yet to come

    def state(self) -> dict[str, Any]:
        """The random states before the batches that nobody has taken yet."""
        return {**self._states[0], "others": self._states[1:]}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue where `state` was taken; before the first batch.

        Of a training on the CPU, which has one source, the others begin anew.
        """
        others = state.get("others", [])
        if not isinstance(others, list):
            raise TypeError(f"the states of the other sources are {type(others).__name__}")
        for number, theirs in enumerate((state, *others)):
            self._sources[number].restore(theirs)
        self._states = [source.state() for source in self._sources]

    def _prepare(self, step: int) -> None:
        number = step % AHEAD
        source = self._sources[number]
        self._states[number] = source.state()
        self._batches.append(self._pool.submit(self._make, source, step))

    def _make(self, source: PatchSource, step: int) -> Exposure:
        return source.degraded(source.cut_by(self._processes, step))

    def next(self, step: int) -> Exposure:
        """The batch of `step`; steps follow each other."""
        if not self._batches:
            for later in range(AHEAD):
                self._prepare(step + later)
        batch = self._batches.popleft().result()
        self._prepare(step + AHEAD)
        return batch

    def close(self) -> None:
        """Wait for the batches that nobody will take."""
        self._pool.shutdown(cancel_futures=True)
        self._processes.shutdown()


def validation_set(pack: Pack, recipe: Recipe) -> Exposure:
    """The fixed validation patches, on the CPU: of real pairs where the pack has some to validate.

    They depend on the pack and on the recipe's task, its table (`blur`, `noise` or `rain`),
    `compression` and `validation` alone, not on the seed. Blur is 2 pixels long or more.

    Raises:
        DataError: no validation picture is large enough.
    """
    random = np.random.default_rng(0)
    count, size = recipe.validation.patches, recipe.validation.size
    pairs = _usable(pack.validation_pairs, size, "validation", 0)
    if pairs:
        return _real(_draw(pairs, count, size, random), torch.device("cpu"))
    blur = recipe.blur
    model = BlurModel(
        shortest=2.0, longest=blur.longest, still=0.0, trajectory=blur.trajectory,
        highlights=blur.highlights, exposure=blur.exposure,
    )  # fmt: skip
    degradation = replace(recipe.degradation, blur=model)
    side = size + 2 * degradation.margin
    whole = [(picture,) for picture in pack.validation]
    pictures = _usable(whole, side, "validation", degradation.margin)
    if not pictures:
        raise _nothing("validation")
    patches = _tensor(_draw(pictures, count, side, random)[:, 0], torch.device("cpu"))
    return degradation.apply(patches, torch.Generator().manual_seed(0))
