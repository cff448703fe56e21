"""`python -m train` from pack to weights, and its refusals."""

import json
import os
import signal

import cv2
import numpy as np
import pytest
import torch

from edge_restore.errors import CardError, DataError, ModelError
from edge_restore.media.metrics import psnr
from edge_restore.models import cards
from train import weights
from train.__main__ import main
from train.patches import PatchSource

TINY = """
network = "svdn"
arguments = {width = 8}
[data]
patch = 32
batch = 2
[optimiser]
steps = 2
[validation]
every = 2
patches = 2
size = 32
"""


@pytest.fixture(scope="module")
def run(pack_file, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    (folder / "tiny.toml").write_text(TINY)
    code = main([str(folder / "tiny.toml"), "--data", str(pack_file), "--out", str(folder)])
    assert code == 0
    return folder


def test_whoever_reads_the_card_reads_the_weights(run):
    """safetensors' own `save_file` leaves files that only their owner can read."""
    modes = {
        path.stat().st_mode & 0o777 for path in (run / "svdn.safetensors", run / "svdn.card.json")
    }
    assert len(modes) == 1


def test_weights_and_card_are_written_and_load_again(run):
    network, card = weights.load(run / "svdn.safetensors")
    assert card.network == "svdn"
    assert card.arguments == {"width": 8}
    assert card.training["steps"] == 2
    assert card.data["files"] == ["photo0.png", "photo1.png"]
    assert (card.scores[0].set, card.scores[0].images) == ("validation, synthetic blur", 2)
    assert card.parameters == sum(p.numel() for p in network.parameters())
    assert card.command.startswith("python -m train tiny.toml --data pack.npz --out ")
    with torch.no_grad():
        assert network(torch.rand(1, 3, 9, 9)).shape == (1, 3, 9, 9)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_training_leaves_weights_and_goes_on(
    pack_file, tmp_path, monkeypatch, capsys, number
):
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(TINY.replace("steps = 2", "steps = 5"))
    take = PatchSource.next

    def stop_in_the_third(source, step):
        if step == 2:
            os.kill(os.getpid(), number)
        return take(source, step)

    monkeypatch.setattr(PatchSource, "next", stop_in_the_third)
    before = signal.getsignal(number)
    command = [str(recipe), "--data", str(pack_file), "--out", str(tmp_path)]
    assert main(command) == 0
    assert "stopped at step 3; run again to go on" in capsys.readouterr().out
    assert signal.getsignal(number) is before
    monkeypatch.undo()
    assert main(command) == 0
    assert weights.load(tmp_path / "svdn.safetensors")[1].training["steps"] == 5


def test_the_average_of_two_runs(run, pack_file, tmp_path, capsys):
    (tmp_path / "tiny.toml").write_text(TINY)
    other = tmp_path / "svdn.safetensors"
    onward = [str(tmp_path / "tiny.toml"), "--data", str(pack_file), "--out", str(tmp_path)]
    assert main([*onward, "--init", str(run / "svdn.safetensors")]) == 0
    out = tmp_path / "mixed.safetensors"
    command = ["average", str(run / "svdn.safetensors"), str(other), "--share", "0.25", "--data",
               str(pack_file), "--out", str(out)]  # fmt: skip
    assert main(command) == 0
    assert "validation, synthetic blur" in capsys.readouterr().out
    mixed, card = weights.load(out)
    first, second = (weights.load(path)[0] for path in (run / "svdn.safetensors", other))
    expected = 0.75 * first.tail.weight + 0.25 * second.tail.weight
    assert not torch.equal(first.tail.weight, second.tail.weight)
    torch.testing.assert_close(mixed.tail.weight, expected)
    assert [part["share"] for part in card.training["average_of"]] == [0.75, 0.25]
    assert card.command.startswith("python -m train average ")
    again = tmp_path / "again.safetensors"
    mixing = ["average", str(out), str(other), "--share", "0.5", *command[5:7]]
    assert main([*mixing, "--out", str(again)]) == 0
    mean, last = weights.load(again)[1].training["average_of"]
    assert mean["average_of"] == card.training["average_of"]
    assert mean["command"] == card.command
    assert last["steps"] == 2
    assert "average_of" not in last
    command[command.index("0.25")] = "1.5"
    assert main(command) == 2
    assert "a share of 1.5" in capsys.readouterr().err


def test_a_changed_weights_file_does_not_load(run, tmp_path):
    for name in ("svdn.safetensors", "svdn.card.json"):
        (tmp_path / name).write_bytes((run / name).read_bytes())
    data = bytearray((run / "svdn.safetensors").read_bytes())
    data[-1] ^= 1
    (tmp_path / "svdn.safetensors").write_bytes(bytes(data))
    with pytest.raises(CardError, match="does not match its card"):
        weights.load(tmp_path / "svdn.safetensors")


def test_a_pickle_is_refused_unopened(tmp_path):
    torch.save({"a": torch.zeros(1)}, tmp_path / "w.safetensors")
    with pytest.raises(DataError, match="is a pickle"):
        weights.load(tmp_path / "w.safetensors")


def test_weights_of_another_layout_are_named(run):
    from train.networks import create

    tensors = weights.read_tensors(run / "svdn.safetensors")
    with pytest.raises(ModelError, match="does not hold weights of svdn"):
        weights.fit(create("svdn"), tensors, "svdn", run / "svdn.safetensors")


def test_pairs_are_blurred_and_reproducible(photos, tmp_path):
    import cv2

    for out in ("a", "b"):
        assert (
            main(
                [
                    "blur",
                    str(photos),
                    "--severity",
                    "medium",
                    "--out",
                    str(tmp_path / out),
                    "--count",
                    "2",
                ]
            )
            == 0
        )
    names = sorted(p.name for p in (tmp_path / "a" / "blurred").iterdir())
    assert names == ["photo0.png", "photo1.png"]
    for name in names:
        blurred, again, sharp = (
            cv2.imread(str(tmp_path / p / name)) for p in ("a/blurred", "b/blurred", "a/sharp")
        )
        assert np.array_equal(blurred, again)
        assert blurred.shape == sharp.shape == (208, 228, 3)
        assert psnr(blurred, sharp) < 35


def test_blur_of_two_pictures_that_would_have_one_name_is_refused(photos, tmp_path, capsys):
    from tests.train.conftest import draw

    for names in (("a.jpg", "a.png"), ("A.png", "a.png"), ("a.JPG", "A.jpeg")):
        folder = tmp_path / names[0]
        folder.mkdir()
        for seed, name in enumerate(names):
            draw(folder / name, seed)
        assert main(["blur", str(folder), "--out", str(tmp_path / "out")]) == 2
        message = capsys.readouterr().err
        assert all(f"'{name}'" in message for name in names)
        assert not (tmp_path / "out").exists()


def test_blur_names_what_it_cannot_read_and_writes_the_others(photos, tmp_path, capsys):
    folder = tmp_path / "photos"
    folder.mkdir()
    whole = (photos / "photo0.png").read_bytes()
    (folder / "good.png").write_bytes(whole)
    (folder / "half.png").write_bytes(whole[: len(whole) // 2])
    (folder / "text.jpg").write_text("no picture")
    assert main(["blur", str(folder), "--out", str(tmp_path / "out")]) == 2
    message = capsys.readouterr().err
    assert "2 of 3 pictures were left out" in message
    assert "'half.png' is cut off" in message and "'text.jpg' cannot be read" in message
    assert [p.name for p in (tmp_path / "out" / "sharp").iterdir()] == ["good.png"]
    assert json.loads((tmp_path / "out" / "pairs.json").read_text())["pictures"] == 1


def test_pairs_of_another_task_are_an_input_and_a_target(photos, tmp_path):
    out = str(tmp_path / "wet")
    assert main(["blur", str(photos), "--task", "derain", "--out", out, "--count", "1"]) == 0
    import cv2

    wet, dry = (cv2.imread(f"{out}/{p}/photo0.png") for p in ("input", "target"))
    assert np.array_equal(dry, cv2.imread(str(photos / "photo0.png")))
    assert 10 < psnr(wet, dry) < 40


def test_a_sheet_shows_every_degradation(tmp_path):
    import cv2

    from tests.train.conftest import draw

    pytest.importorskip("av")
    draw(tmp_path / "photo.png", 1, (430, 450))
    out = tmp_path / "sheet.jpg"
    assert main(["blur", str(tmp_path / "photo.png"), "--sheet", str(out)]) == 0
    sheet = cv2.imread(str(out))
    assert sheet.shape == (6 * 176, 2 * 3 * 176 + 8, 3)


def test_a_training_on_real_pairs(photos, tmp_path):
    import shutil

    for side in ("input", "target"):
        shutil.copytree(photos, tmp_path / "set" / side)
    for path in (tmp_path / "set" / "input").iterdir():
        cv2.imwrite(str(path), cv2.blur(cv2.imread(str(path)), (5, 1)))
    pack, out = tmp_path / "pairs.npz", tmp_path / "run"
    assert main(["pack", "--dataset", "pairs", str(tmp_path / "set"), "--out", str(pack)]) == 0
    (tmp_path / "tiny.toml").write_text(TINY)
    assert main([str(tmp_path / "tiny.toml"), "--data", str(pack), "--out", str(out)]) == 0
    _, card = weights.load(out / "svdn.safetensors")
    assert card.data["files"] == ["photo0", "photo1"]
    assert card.scores[0].set == "validation, real pairs"


RUN = ["run", "{run}/tiny.toml", "--out", "{tmp}/o"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["run", "{run}/none.toml", "--data", "{pack}", "--out", "{tmp}/o"], "cannot be read"),
        ([*RUN, "--data", "{tmp}/none.npz"], "cannot be read as a training pack"),
        ([*RUN, "--data", "{pack}", "--device", "tpu"], "cannot train on"),
        ([*RUN, "--data", "{pack}", "--init", "{tmp}/w"], "no weights at"),
        (["pack", "{tmp}", "--out", "{tmp}/p.npz"], "no usable photo"),
        (["pack", "--dataset", "gopro", "{photos}", "--out", "{tmp}/p.npz"], "no pair of gopro"),
        (["pack", "--dataset", "odd", "{photos}", "--out", "{tmp}/p.npz"], "no data set is"),
        (["pack", "{photos}", "--h264", "23", "--out", "{tmp}/p.npz"], "without --dataset"),
        (["blur", "{tmp}", "--out", "{tmp}/p"], "there is no picture"),
        (["blur", "{photos}"], "needs a place for its result"),
        (["blur", "{photos}/photo0.png", "--sheet", "{tmp}/s.jpg"], "too small for a sheet"),
        (["blur", "{photos}", "--out", "{tmp}/p", "--task", "odd"], "no task is called"),
        (["blur", "{photos}", "--out", "{tmp}/p", "--severity", "odd"], "no blur severity"),
    ],
)  # fmt: skip
def test_bad_input_is_one_message_and_exit_code_2(
    arguments, says, run, pack_file, photos, tmp_path, capsys
):
    filled = [a.format(run=run, pack=pack_file, tmp=tmp_path, photos=photos) for a in arguments]
    assert main(filled) == 2
    error = capsys.readouterr().err
    assert says in error
    assert "hint:" in error
    assert "Traceback" not in error
    assert not (tmp_path / "p.npz").exists()
    assert cards.card_path(tmp_path / "o" / "svdn.safetensors").exists() is False


@pytest.mark.parametrize(
    "options",
    [
        ["pack", "{photos}", "--out", "{tmp}/p.npz", "--longest", "0"],
        ["pack", "{photos}", "--out", "{tmp}/p.npz", "--longest-clip", "-1"],
        ["pack", "{photos}", "--out", "{tmp}/p.npz", "--frames", "0"],
        ["blur", "{photos}", "--out", "{tmp}/p", "--count", "-1"],
        ["blur", "{photos}", "--out", "{tmp}/p", "--longest", "0"],
        ["blur", "{photos}", "--out", "{tmp}/p", "--seed", "-1"],
        [*RUN, "--data", "{pack}", "--threads", "0"],
        [*RUN, "--data", "{pack}", "--max-minutes", "nan"],
        [*RUN, "--data", "{pack}", "--max-minutes=-1"],
    ],
)
def test_numbers_out_of_range_are_refused_before_any_work(
    options, run, pack_file, photos, tmp_path, capsys
):
    filled = [a.format(run=run, pack=pack_file, tmp=tmp_path, photos=photos) for a in options]
    with pytest.raises(SystemExit) as end:
        main(filled)
    assert end.value.code == 2
    assert "is not a" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_damaged_checkpoint_is_named(run, pack_file, tmp_path, capsys):
    import random

    whole = (run / "checkpoint.pt").read_bytes()
    command = [str(run / "tiny.toml"), "--data", str(pack_file), "--out", str(tmp_path)]
    rng = random.Random(0)
    for number in range(24):
        place = rng.randrange(len(whole))
        damaged = (whole[:place], whole[:place] + b"\xff" * 64 + whole[place + 64 :], b"text")
        (tmp_path / "checkpoint.pt").write_bytes(damaged[number % 3])
        if (code := main([*command, "--max-minutes", "0"])) != 0:
            assert code == 2
            assert "cannot be read as a checkpoint" in capsys.readouterr().err
            continue
        assert number % 3 == 1  # between two members, where nothing is


@pytest.mark.parametrize(
    ("key", "content"),
    [
        ("network", {}),
        ("average", 3),
        ("optimisers", []),
        ("sources", [{}]),
        ("sources", [{"numpy": {"bit_generator": "x"}, "torch": 1}]),
        ("step", "many"),
        ("minutes", None),
        ("best", ...),
    ],
)
def test_a_checkpoint_that_lacks_something_is_named(key, content, run, pack_file, tmp_path, capsys):
    import torch

    state = torch.load(run / "checkpoint.pt", weights_only=True)
    state[key] = content
    if content is ...:
        del state[key]
    torch.save(state, tmp_path / "checkpoint.pt")
    command = [str(run / "tiny.toml"), "--data", str(pack_file), "--out", str(tmp_path)]
    assert main([*command, "--max-minutes", "0"]) == 2
    assert "cannot be read as a checkpoint" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "unused"),
    [
        (["pack", "{photos}", "--split", "test", "--out", "{tmp}/p.npz"], "--split"),
        (["blur", "{photos}/photo0.png", "--sheet", "{tmp}/s.jpg", "--task", "derain", "--jpeg"],
         "--task, --jpeg"),
        (["blur", "{photos}/photo0.png", "--sheet", "{tmp}/s.jpg", "--count", "1"], "--count"),
        (["networks", "--costs", "{tmp}/c.json", "--size", "64x64", "--json"], "--size, --json"),
    ],
)  # fmt: skip
def test_options_without_an_effect_are_refused(words, unused, photos, tmp_path, capsys):
    assert main([word.format(tmp=tmp_path, photos=photos) for word in words]) == 2
    assert f"{unused} beside" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
