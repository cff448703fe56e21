from __future__ import annotations

from pathlib import Path

import pytest

from edge_restore.errors import DataError
from edge_restore.evaluation.pairs import find_pairs, match_pairs


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def test_pairs_json_names_the_severity(tmp_path: Path) -> None:
    touch(tmp_path, "blurred/a.png", "sharp/a.png")
    assert [pair.severity for pair in find_pairs(tmp_path)] == [""]
    description = tmp_path / "pairs.json"
    description.write_text('{"severity": "heavy", "seed": 0}')
    assert [(pair.name, pair.severity) for pair in find_pairs(tmp_path)] == [("a.png", "heavy")]
    for text, problem in (
        ("{", "it is not JSON"),
        ("[]", "is no JSON"),
        ('{"severity": 3}', "3"),
    ):
        description.write_text(text)
        with pytest.raises(DataError, match=problem):
            find_pairs(tmp_path)


def test_subfolders_are_severities(tmp_path: Path) -> None:
    touch(tmp_path, "light/blur/a.png", "light/gt/a.png", "notes/readme.txt")
    touch(tmp_path, "b/blurred/a.png", "b/sharp/a.png")
    (tmp_path / "b" / "pairs.json").write_text('{"severity": "medium"}')
    pairs = find_pairs(tmp_path)
    assert [(pair.name, pair.severity) for pair in pairs] == [
        ("b/a.png", "medium"),
        ("light/a.png", "light"),
    ]
    (tmp_path / "c" / "sharp").mkdir(parents=True)
    with pytest.raises(DataError, match="c' has none of the folders blurred"):
        find_pairs(tmp_path)


def test_trajectories_are_folders_of_frames(tmp_path: Path) -> None:
    touch(tmp_path, "blurred/a.png", "blurred/b.png", "sharp/a/2.png", "sharp/a/1.png")
    touch(tmp_path, "sharp/b.png", "sharp/a/notes.txt")
    blurred, sharp = tmp_path / "blurred", tmp_path / "sharp"
    a, b = match_pairs(blurred, sharp, trajectories=True)
    assert a.sharp_frames() == [sharp / "a" / "1.png", sharp / "a" / "2.png"]
    assert b.sharp_frames() == [sharp / "b.png"]
    with pytest.raises(DataError, match=r"a.png \(only in .*blurred"):
        match_pairs(blurred, sharp)
    (single,) = match_pairs(blurred / "a.png", sharp / "a", trajectories=True)
    assert len(single.sharp_frames()) == 2
    with pytest.raises(DataError, match="the other a folder"):
        match_pairs(blurred / "a.png", sharp / "a")


def test_trajectories_without_partner_or_frames(tmp_path: Path) -> None:
    touch(tmp_path, "blurred/a.png", "sharp/a/1.png", "sharp/c/1.png")
    blurred, sharp = tmp_path / "blurred", tmp_path / "sharp"
    with pytest.raises(DataError, match=r"c \(only in .*sharp") as caught:
        match_pairs(blurred, sharp, trajectories=True)
    assert "folder of frames" in str(caught.value)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="there is no image in"):
        match_pairs(blurred / "a.png", tmp_path / "empty", trajectories=True)
    with pytest.raises(DataError, match="there is no image in"):
        match_pairs(blurred, tmp_path / "empty", trajectories=True)
