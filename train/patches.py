"""Batches: random sharp patches of a pack, augmented, then blurred on the training device."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from edge_restore.errors import DataError
from train.blur import LONGEST, BlurModel, Exposure, expose
from train.pack import Pack, Picture
from train.recipe import Recipe

MARGIN = math.ceil(LONGEST / 2)

DETAIL = 5.0
"""Mean difference between neighbours, in levels of 255, from which a patch counts as detailed."""


def _usable(pictures: list[Picture], side: int, split: str) -> list[Picture]:
    usable = [p for p in pictures if min(p.shape[:2]) >= side]
    if not usable:
        raise DataError(
            f"the pack has no {split} picture of {side} pixels or more ({len(pictures)} smaller)",
            expected=f"both sides of {side} pixels or more: the patch and its margin for the blur",
            mend="pack larger pictures, or choose a smaller patch in the recipe",
        )
    return usable


def _cut(pictures: list[Picture], count: int, side: int, random: np.random.Generator) -> Picture:
    """(count, side, side, 3) uint8, drawn by the pictures' areas.

    Sky, paper and defocus teach a deblurring network little: of up to four draws the first with
    some detail is taken.
    """
    areas = np.array([p.shape[0] * p.shape[1] for p in pictures], dtype=np.float64)
    patches = np.empty((count, side, side, 3), np.uint8)
    for i in range(count):
        for _ in range(4):
            picture = pictures[random.choice(len(pictures), p=areas / areas.sum())]
            y = random.integers(0, picture.shape[0] - side + 1)
            x = random.integers(0, picture.shape[1] - side + 1)
            patches[i] = picture[y : y + side, x : x + side]
            if np.abs(np.diff(patches[i, ::2].astype(np.int16), axis=1)).mean() > DETAIL:
                break
    return patches


class PatchSource:
    """Endless training batches; its randomness can be saved and restored with a checkpoint."""

    def __init__(self, pack: Pack, recipe: Recipe, device: torch.device, rank: int = 0) -> None:
        """Processes of different `rank` draw differently.

        Raises:
            DataError: the pack has no picture that is large enough for each of the recipe's crops.
        """
        self._data, self._blur, self._device = recipe.data, recipe.blur, device
        sides = {recipe.data.patch, *(crop.patch for crop in recipe.data.later)}
        self._pictures = {
            side: _usable(pack.train, side + 2 * MARGIN, "training") for side in sides
        }
        self._random = np.random.default_rng([recipe.seed, rank] if rank else recipe.seed)
        self._generator = torch.Generator(device).manual_seed(recipe.seed + 1_000_003 * rank)

    def state(self) -> dict[str, object]:
        """The random state, for `restore`."""
        return {"numpy": self._random.bit_generator.state, "torch": self._generator.get_state()}

    def restore(self, state: dict[str, object]) -> None:
        """Continue where `state` was taken; the torch part only on the same kind of device."""
        self._random.bit_generator.state = state["numpy"]
        saved = state["torch"]
        assert isinstance(saved, Tensor)
        if saved.shape == self._generator.get_state().shape:
            self._generator.set_state(saved.cpu())

    def close(self) -> None:
        """Nothing to wait for."""

    def next(self, step: int) -> Exposure:
        """The batch of a step, float32, on the device."""
        side, count = self._data.crop(step)
        patches = _cut(self._pictures[side], count, side + 2 * MARGIN, self._random)
        for i in range(count):
            # The augmentation of SVDN, section 4.2: flips, rotations, permuted channels.
            turned = np.rot90(patches[i], self._random.integers(4))
            turned = turned[:, :: self._random.choice((-1, 1))]
            patches[i] = turned[..., self._random.permutation(3)]
        sharp = torch.from_numpy(patches).to(self._device).permute(0, 3, 1, 2).float() / 255
        return expose(sharp, self._blur, self._generator, margin=MARGIN)


class Ahead:
    """Makes the next batch of `source` on one core while a GPU trains on the last one.

    Not for training on the CPU: there a step waits for the core that makes the batch (0.44 s in
    place of 0.35 s on two cores).
    """

    def __init__(self, source: PatchSource, step: int) -> None:
        """The first batch will be that of `step`."""
        self._source = source
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="patches")
        threads = torch.get_num_threads()
        self._thread.submit(torch.set_num_threads, 1).result()
        torch.set_num_threads(threads)  # which is one number for threads that are yet to come
        self._prepare(step)

    def _prepare(self, step: int) -> None:
        self._state = self._source.state()
        self._batch = self._thread.submit(self._source.next, step)

    def state(self) -> dict[str, object]:
        """The random state before the batch that `next` will return."""
        return self._state

    def next(self, step: int) -> Exposure:
        """The batch of `step`, which was being made; steps follow each other."""
        batch = self._batch.result()
        self._prepare(step + 1)
        return batch

    def close(self) -> None:
        """Wait for the batch that nobody will take."""
        self._thread.shutdown()


def validation_set(pack: Pack, recipe: Recipe) -> Exposure:
    """The fixed validation patches, on the CPU.

    They depend on the pack and on the recipe's blur and validation sections alone, not on the seed.

    Raises:
        DataError: no validation picture is large enough.
    """
    side = recipe.validation.size + 2 * MARGIN
    pictures = _usable(pack.validation, side, "validation")
    random = np.random.default_rng(0)
    generator = torch.Generator().manual_seed(0)
    patches = torch.from_numpy(_cut(pictures, recipe.validation.patches, side, random))
    model = BlurModel(shortest=2.0, longest=recipe.blur.longest, still=0.0)
    return expose(patches.permute(0, 3, 1, 2).float() / 255, model, generator, margin=MARGIN)
