"""Every command refuses an empty path, and a folder where it asks for a file."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest

PARSERS = {
    "edge-restore": ("edge_restore.cli", "_parser"),
    "train": ("train.__main__", "parser"),
    "calibration": ("calibration.__main__", "parser"),
    "export": ("export.__main__", "parser"),
    "export.deform_conv": ("export.deform_conv.__main__", "parser"),
}


def commands(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for each in action.choices.values():
                yield from commands(each)


@pytest.mark.parametrize("package", PARSERS)
def test_no_option_takes_any_text_for_a_path(package: str) -> None:
    module, name = PARSERS[package]
    if package != "edge-restore":
        pytest.importorskip("torch")
    parser = getattr(importlib.import_module(module), name)()
    taken = 0
    for command in commands(parser):
        for action in command._actions:
            found = f"{command.prog} {action.dest}"
            assert action.type is not Path, found
            if getattr(action.type, "__name__", "") in ("any_path", "file_path"):
                with pytest.raises(argparse.ArgumentError, match="is not a path"):
                    command._get_value(action, "")  # type: ignore[attr-defined]
                taken += 1
    assert taken >= 2


@pytest.mark.parametrize("size", ["0x16", "16x0", "0x0", ""])
@pytest.mark.parametrize(
    "words",
    [
        "edge-restore bench --model lmfn --sizes {}",
        "edge-restore build lmfn --size {}",
        "calibration collect . --out set.npz --size {}",
        "export lmfn --weights w.safetensors --out o.onnx --size {}",
    ],
)
def test_a_side_of_zero_is_no_size(
    words: str, size: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    package, *arguments = (word.format(size) for word in words.split())
    if package != "edge-restore":
        pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    module = PARSERS[package][0]
    assert importlib.import_module(module).main(arguments) == 2
    assert "is not a size" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("percentile", ["nan", "-5", "0.9999", "100.1", "inf"])
def test_a_percentile_is_a_percentage(percentile: str, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch")
    from calibration.__main__ import main

    with pytest.raises(SystemExit, match="2"):
        main(["quantise", "m.onnx", "--frames", "f.npz", "--out", "o.onnx",
              "--method", "percentile", "--percentile", percentile])  # fmt: skip
    assert "is not a number from 50 to 100" in capsys.readouterr().err
