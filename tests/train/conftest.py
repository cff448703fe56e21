"""A small training world: a pack made from pictures drawn here, and a recipe that takes seconds."""

import cv2
import numpy as np
import pytest
import torch

from train import pack as packs
from train import packing
from train.recipe import parse

torch.set_num_threads(min(2, torch.get_num_threads()))


def draw(path, seed, size=(240, 260)):
    """A picture with edges: random rectangles."""
    random = np.random.default_rng(seed)
    picture = np.full((*size, 3), 128, np.uint8)
    for _ in range(60):
        y, x = random.integers(0, size[0]), random.integers(0, size[1])
        picture[y : y + 30, x : x + 20] = random.integers(0, 256, 3)
    cv2.imwrite(str(path), picture)


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for seed in range(3):
        draw(folder / f"photo{seed}.png", seed)
    return folder


@pytest.fixture(scope="session")
def pack_file(photos, tmp_path_factory):
    path = tmp_path_factory.mktemp("pack") / "pack.npz"
    packing.make([photos], path, packing.Names(validation={"photo2.png"}))
    return path


@pytest.fixture(scope="session")
def pack(pack_file):
    return packs.load(pack_file)


@pytest.fixture
def recipe():
    def make(motion_first=0, **optimiser):
        settings = {"steps": 6, "rate": 1e-3, "warmup": 2, "clip": 1.0, **optimiser}
        return parse(
            {
                "network": "svdn",
                "arguments": {"width": 8},
                "data": {"patch": 32, "batch": 2},
                "optimiser": settings,
                "loss": {"motion": 0.01, "motion_first": motion_first},
                "validation": {"every": 3, "patches": 2, "size": 32},
            }
        )

    return make
