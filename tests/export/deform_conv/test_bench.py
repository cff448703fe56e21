"""The benchmark as far as a machine without a GPU can try it."""

import json
from dataclasses import asdict

import pytest
import torch

pytest.importorskip("triton", reason="triton is not installed")

from edge_restore.pipeline.latency import percentiles
from export.deform_conv import bench, contenders

NO_GPU = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")


@NO_GPU
def test_without_a_gpu_it_says_so(capsys, tmp_path):
    assert bench.main(["--out", str(tmp_path / "bench.json")]) == 2
    assert "no NVIDIA GPU" in capsys.readouterr().err
    assert not (tmp_path / "bench.json").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--size", "640"], "'640' is not a size"),
        (["--size", "0x640"], "'0x640' is not a size"),
        (["--samples", "0"], "--samples 0 measures nothing"),
        (["--out", "/nowhere/at/all.json"], "does not exist"),
    ],
)
def test_bad_options_are_named_before_anything_runs(arguments, message, capsys):
    assert bench.main(arguments) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_all_contenders_compute_the_same_layer(dtype):
    layer = contenders.Layer.random(5, 6, dtype, "cpu")
    expected = layer.reference()
    tolerance = {"rtol": 0, "atol": 1e-5 if dtype == torch.float32 else 2e-2}
    ours = contenders.ours(layer)().permute(0, 3, 1, 2).float()
    torch.testing.assert_close(ours, expected, **tolerance)
    layer.slope.fill_(1)  # the others leave the activation out
    plain = contenders.grid_sample_and_gemm(layer)().float()
    torch.testing.assert_close(plain, layer.reference(), **tolerance)
    if (run := contenders.torchvision_op(layer)) is not None and dtype == torch.float32:
        torch.testing.assert_close(run(), layer.reference(), **tolerance)


def test_the_floor_counts_what_must_be_moved_and_multiplied():
    layer = contenders.Layer.random(10, 20, torch.float16, "cpu")
    assert layer.bytes_moved == 2 * (10 * 20 * (48 + 75 + 48) + 25 * 48 * 48)
    assert layer.operations == 2 * 10 * 20 * 25 * 48 * 48


def test_the_table_compares_with_ours():
    times = {"ours": [0.5] * 3, "torchvision": [2.0] * 3}
    document = {
        "machine": {
            "gpu": "NVIDIA Test", "compute_capability": "8.9", "torch": "2", "triton": "3",
            "torchvision": None,
        },
        "ceilings": {"copy_gb_per_s": 800.0},
        "results": [
            {
                "height": 360, "width": 640, "precision": "fp16", "max_abs_error": 1e-3,
                "floor_ms": 0.25,
                "times_ms": {n: asdict(percentiles(t)) for n, t in times.items()}
                | {"GridSample + GEMM": None},
            }
        ],
    }  # fmt: skip
    text = bench.table(json.loads(json.dumps(document)))
    assert "NVIDIA Test (sm_89)" in text
    rows = {line.split()[2]: line for line in text.splitlines() if line.startswith("360x640")}
    assert "4.00x" in rows["torchvision"] and "1.00x" in rows["ours"]
    assert "0.50x" in rows["floor"] and "out of memory" in rows["GridSample"]
