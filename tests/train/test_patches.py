"""Batches: the same for a recipe as ever; real pairs come as they are."""

import contextlib
import dataclasses
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
import torch

from edge_restore.errors import DataError
from tests.train.conftest import draw
from train import pack as packs
from train import packing, patches
from train.patches import AHEAD, Ahead, PatchSource, _draw, validation_set
from train.recipe import as_table, parse

CPU = torch.device("cpu")

PINNED = [812545, 796162, 22935.1, 871657, 863505, 12621.3]
PINNED_DRAW = 0.7941635847091675
PINNED_VALIDATION = [741719, 731553]


def test_batches_of_a_seed_are_what_they_were(pack, recipe):
    """The weights of a card can be trained again only while these figures stay.

    Sharp pictures and motion were taken before the simulator had more than one trajectory, the
    blurred ones after instants were sampled bicubically instead of bilinearly. Sums of 8-bit
    levels: the last bit of an interpolation may round otherwise elsewhere; another draw changes
    thousands.
    """
    source = PatchSource(pack, recipe(), CPU)
    sums = []
    for _ in range(2):
        batch = source.next(0)
        sums += [int((part * 255).round().sum()) for part in (batch.blurred, batch.sharp)]
        sums.append(float(batch.flows.abs().sum()))
    assert sums == pytest.approx(PINNED, abs=30)
    assert torch.rand(1, generator=source._generator).item() == pytest.approx(PINNED_DRAW)
    validation = validation_set(pack, recipe())
    fixed = [int((part * 255).round().sum()) for part in (validation.blurred, validation.sharp)]
    assert fixed == pytest.approx(PINNED_VALIDATION, abs=30)


@pytest.fixture(scope="module")
def pair_pack(tmp_path_factory):
    """Two clips of three frames; the degraded side is the sharp one at half the brightness."""
    root = tmp_path_factory.mktemp("gopro")
    for clip, start in (("A", 0), ("B", 10)):
        for number in range(start, start + 3):
            for side in ("blur", "sharp"):
                (root / "train" / clip / side).mkdir(parents=True, exist_ok=True)
            sharp = root / "train" / clip / "sharp" / f"{number:06d}.png"
            draw(sharp, number, (200, 220))
            half = cv2.imread(str(sharp)) // 2
            cv2.imwrite(str(root / "train" / clip / "blur" / sharp.name), half)
    path = root / "pack.npz"
    packing.make([root], path, packing.Names(validation={"B"}), dataset=packing.DataSet("gopro"))
    return packs.load(path)


def plain(**changes):
    table = {
        "network": "svdn", "data": {"patch": 32, "batch": 6}, "optimiser": {"steps": 1},
        "validation": {"patches": 3, "size": 48},
    }  # fmt: skip
    return parse({**table, **changes})


def halves(blurred, sharp):
    return [
        torch.equal((b * 255).round(), ((s * 255).round() / 2).floor())
        for b, s in zip(blurred, sharp, strict=True)
    ]


def test_pairs_are_cut_and_turned_alike_and_not_blurred(pair_pack):
    source = PatchSource(pair_pack, plain(), CPU)
    batch = source.next(0)
    assert batch.blurred.shape == (6, 3, 32, 32)
    assert all(halves(batch.blurred, batch.sharp))
    assert not batch.flows.any()
    state = source.state()
    following = source.next(0)
    source.restore(state)
    assert torch.equal(source.next(0).blurred, following.blurred)
    validation = validation_set(pair_pack, plain())
    assert validation.sharp.shape == (3, 3, 48, 48)
    assert all(halves(validation.blurred, validation.sharp))


def test_pictures_and_pairs_share_batches_by_their_area(pack, pair_pack):
    both = dataclasses.replace(pair_pack, train=pack.train[:1])
    source = PatchSource(both, plain(), CPU)
    real = sum(sum(halves(*source.next(0)[:2])) for _ in range(8)) / 48
    area = 3 * 200 * 220
    assert real == pytest.approx(area / (area + 240 * 260), abs=0.2)


def test_pairs_have_no_motion_to_be_guided_by(pair_pack):
    with pytest.raises(DataError, match="3 real pairs, whose motion nobody knows"):
        PatchSource(pair_pack, plain(loss={"motion": 1.0}), CPU)


def test_other_tasks_need_no_margin_for_blur(pack):
    recipe = plain(task="denoise", data={"patch": 240, "batch": 1})
    batch = PatchSource(pack, recipe, CPU).next(0)
    assert batch.blurred.shape == (1, 3, 240, 240)
    with pytest.raises(DataError, match="of 272 pixels or more"):
        PatchSource(pack, plain(data={"patch": 240, "batch": 1}), CPU)
    wet = validation_set(pack, plain(task="derain"))
    assert (wet.blurred - wet.sharp).abs().mean() > 0.01


def slopes(zoom):
    """Mean steps down and across of the red ramp and the green one, over eight patches."""
    y, x = np.mgrid[:240, :240]
    ramps = np.stack((y, x, np.zeros_like(x)), axis=-1).astype(np.uint8)
    patches = _draw([(ramps,)], 8, 48, np.random.default_rng(1), zoom)[:, 0].astype(float)
    inside = patches[:, 4:-4, 4:-4]
    down = (inside[:, -1] - inside[:, 0]).mean(axis=1)[:, 0] / (inside.shape[1] - 1)
    across = (inside[:, :, -1] - inside[:, :, 0]).mean(axis=1)[:, 1] / (inside.shape[2] - 1)
    return down, across


def test_zoom_changes_height_and_width_apart():
    assert all(np.all(steps == 1) for steps in slopes(1.0))
    down, across = slopes(2.0)
    for steps in (down, across):
        assert steps.min() > 0.48 and steps.max() < 2.05
        assert steps.max() / steps.min() > 2
    assert np.abs(np.log(down / across)).max() > np.log(1.5)


def test_zoom_shows_no_more_than_there_is():
    picture = np.full((50, 60, 3), 7, np.uint8)
    assert np.all(_draw([(picture,)], 20, 48, np.random.default_rng(1), 3.0) == 7)


def test_a_share_of_the_patches_may_be_smooth():
    noise = np.random.default_rng(0).integers(0, 256, (100, 100, 3)).astype(np.uint8)
    scenes = [(noise,), (np.zeros_like(noise),)]

    def flat(smooth):
        patches = _draw(scenes, 200, 32, np.random.default_rng(1), smooth=smooth)
        return float(np.mean([not patch.any() for patch in patches]))

    assert flat(0.0) == pytest.approx(1 / 16, abs=0.05)
    assert flat(1.0) == pytest.approx(1 / 2, abs=0.1)


@pytest.mark.parametrize("kind", ["tiled", "striped", "defocused", "subsampled"])
def test_a_share_of_the_patches_is_altered(kind, monkeypatch):
    class Scenes:
        train, train_pairs = [np.full((200, 200, 3), 90, np.uint8)], []

    monkeypatch.setattr(patches, kind, lambda picture, *_, **__: np.full_like(picture, 7))

    def changed(share):
        table = as_table(plain())
        table["data"] = {"patch": 32, "batch": 60, "smooth": 1.0, kind: share}
        source = PatchSource(Scenes(), parse(table), CPU)
        made = source._patches([(Scenes.train[0],)], 60, 64)
        return float(np.mean([(patch == 7).all() for patch in made]))

    assert changed(0.0) == 0
    assert changed(0.3) == pytest.approx(0.3, abs=0.15)
    assert changed(1.0) == 1


def take(batches, steps):
    return [batches.next(step).blurred for step in steps]


def test_batches_made_ahead_are_those_of_sources_that_take_turns(pack, recipe):
    with contextlib.closing(Ahead(pack, recipe(), CPU, rank=1, ranks=2)) as ahead:
        made = take(ahead, range(3, AHEAD + 5))
    sources = [PatchSource(pack, recipe(), CPU, 1 + 2 * number) for number in range(AHEAD)]
    for step, batch in enumerate(made, 3):
        assert torch.equal(batch, sources[step % AHEAD].next(step).blurred)


def test_making_batches_ahead_leaves_other_threads_their_cores(pack, recipe):
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with contextlib.closing(Ahead(pack, recipe(), CPU)), ThreadPoolExecutor(1) as later:
            assert later.submit(torch.get_num_threads).result() == 2
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)


def test_batches_made_ahead_continue_where_they_were(pack, recipe):
    with contextlib.closing(Ahead(pack, recipe(), CPU)) as ahead:
        take(ahead, range(3))
        state = ahead.state()
        following = take(ahead, range(3, AHEAD + 4))
    with contextlib.closing(Ahead(pack, recipe(), CPU)) as resumed:
        resumed.restore(state)
        assert resumed.state()["numpy"] == state["numpy"]
        for batch, theirs in zip(take(resumed, range(3, AHEAD + 4)), following, strict=True):
            assert torch.equal(batch, theirs)


def test_a_training_may_go_from_one_kind_of_device_to_another(pack, recipe):
    with contextlib.closing(Ahead(pack, recipe(), CPU)) as ahead:
        take(ahead, range(AHEAD))
        first, source = ahead.state(), PatchSource(pack, recipe(), CPU)
        source.restore(first)
        following = source.next(0).blurred
        assert torch.equal(following, ahead.next(AHEAD).blurred)
    source.restore(first)
    with contextlib.closing(Ahead(pack, recipe(), CPU)) as back:
        back.restore(source.state())
        assert torch.equal(back.next(0).blurred, following)


def test_an_empty_split_is_named(pair_pack):
    nothing = dataclasses.replace(
        pair_pack, train_pairs=[], validation_pairs=[], train=[], validation=[]
    )
    with pytest.raises(DataError, match="no training picture"):
        PatchSource(nothing, plain(), CPU)
    with pytest.raises(DataError, match="no validation picture"):
        validation_set(nothing, plain())


def test_neighbours_of_a_clip_lead_to_the_frames_beside(pair_pack):
    assert [pair_pack.neighbours("train_pairs", i) for i in range(3)] == [
        (None, 1), (0, 2), (1, None),
    ]  # fmt: skip
    previous, _ = pair_pack.neighbours("train_pairs", 1)
    assert np.array_equal(pair_pack.train_pairs[previous][1], pair_pack.train_pairs[0][1])
    assert pair_pack.places["validation_pairs"][0] == packs.Place("B", 10)
