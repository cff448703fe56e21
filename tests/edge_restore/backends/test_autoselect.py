"""Which backend "auto" takes on a CPU: measured once, exact enough, remembered."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_restore import backends
from edge_restore.backends import autoselect as choice
from edge_restore.backends.autoselect import Candidate, pick
from tests.edge_restore.onnx_models import write_model

Fastest = Callable[..., str]


FASTEST = choice.fastest
"""The real one: this module is read before any test puts another in its place."""


@pytest.fixture
def fastest(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Fastest:
    """The real function, with a cache of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return FASTEST


def test_the_fastest_that_is_exact_enough() -> None:
    exact, quick = Candidate("onnxruntime", 30.0, 200.0), Candidate("openvino", 10.0, 98.0)
    rough = Candidate("openvino-bf16", 5.0, 49.9)
    assert pick([exact, quick, rough]) == "openvino"
    assert pick([exact, quick, Candidate("openvino-bf16", 5.0, 50.0)]) == "openvino-bf16"
    assert pick([rough]) == pick([]) == "onnxruntime"


def test_it_is_measured_once(
    fastest: Fastest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("openvino", reason="the extra openvino is not installed")
    model = write_model(tmp_path)
    first = fastest([model], threads=2)
    assert "measuring which backend is fastest" in capsys.readouterr().err
    assert fastest([model], threads=2) == first and capsys.readouterr().err == ""
    (file,) = (tmp_path / "cache/edge-restore/backends").glob("*.json")
    document = json.loads(file.read_text())
    assert document["chosen"] == first
    names = {one["backend"] for one in document["measured"]}
    assert {"onnxruntime", "openvino"} <= names
    assert all(one["milliseconds"] > 0 and one["psnr"] > 40 for one in document["measured"])


def test_another_model_or_number_of_threads_is_measured_anew(
    fastest: Fastest, tmp_path: Path
) -> None:
    pytest.importorskip("openvino", reason="the extra openvino is not installed")
    a, b = write_model(tmp_path, name="a"), write_model(tmp_path, "float", "b")
    for model, threads in ((a, 1), (a, 2), (b, 1), (a, 1)):
        fastest([model], threads=threads)
    assert len(list((tmp_path / "cache/edge-restore/backends").glob("*.json"))) == 3


def test_a_damaged_memory_is_replaced(fastest: Fastest, tmp_path: Path) -> None:
    pytest.importorskip("openvino", reason="the extra openvino is not installed")
    model = write_model(tmp_path)
    first = fastest([model], threads=2)
    (file,) = (tmp_path / "cache/edge-restore/backends").glob("*.json")
    for damage in ("{", '{"chosen": "abacus"}', "[]"):
        file.write_text(damage)
        assert fastest([model], threads=2) in backends.CPU_NAMES
        assert json.loads(file.read_text())["chosen"]
    assert first in backends.CPU_NAMES


def test_with_one_backend_nothing_is_measured(
    fastest: Fastest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(choice, "_can_run", lambda name: name == "onnxruntime")
    assert fastest([write_model(tmp_path)]) == "onnxruntime"
    assert capsys.readouterr().err == "" and not (tmp_path / "cache").exists()


def test_a_cache_that_cannot_be_written_does_no_harm(
    fastest: Fastest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openvino", reason="the extra openvino is not installed")
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert fastest([write_model(tmp_path)], threads=1) in backends.CPU_NAMES
