"""A training world in small, for the kinds that train: pack, recipe, weights, checkpoint."""

from __future__ import annotations

from pathlib import Path

RECIPE = """\
network = "lmfn"
arguments = {width = 4}
[data]
patch = 32
batch = 1
[optimiser]
steps = 1
[validation]
every = 1
patches = 1
size = 32
"""
WORDS = ["--device", "cpu", "--max-minutes"]


def make(folder: Path, *, trained: bool = False) -> None:
    """Write pack.npz and recipe.toml into the folder, and a run where asked for."""
    import cv2
    import numpy as np

    from train import packing

    photos = folder / "photos"
    photos.mkdir()
    for seed in range(3):
        random = np.random.default_rng(seed)
        picture = np.full((192, 192, 3), 128, np.uint8)
        for _ in range(60):
            y, x = random.integers(0, 192), random.integers(0, 192)
            picture[y : y + 30, x : x + 20] = random.integers(0, 256, 3)
        cv2.imwrite(str(photos / f"photo{seed}.png"), picture)
    packing.make([photos], folder / "pack.npz", packing.Names(validation={"photo2.png"}))
    (folder / "recipe.toml").write_text(RECIPE)
    if trained:
        from train.__main__ import main

        words = [str(folder / "recipe.toml"), "--data", str(folder / "pack.npz"), *WORDS, "5"]
        if main([*words, "--out", str(folder / "run")]):
            raise RuntimeError("the sound training was refused")
