"""The choice of block shapes: the model's order, its facts, and measured tables above it."""

import json

import pytest

from edge_restore.engine.plugin.kernels import load_index
from edge_restore.errors import DataError
from export.deform_conv import blocks
from export.deform_conv.blocks import (
    ARCHITECTURES,
    Blocks,
    best_by_model,
    candidates,
    choose_blocks,
    estimate,
)

SMALL = Blocks(8, 8, 16, 1, 64, 4)


def cost(arch, *shape):
    return estimate(Blocks(*shape), arch, "fp16").clocks


def test_48_channels_fit_three_chunks_of_16_better_than_one_of_64():
    assert cost(80, 8, 16, 16, 3, 64, 8) < cost(80, 8, 16, 64, 1, 64, 8)
    assert cost(80, 8, 16, 16, 3, 64, 8) < cost(80, 8, 16, 32, 2, 64, 8)


def test_square_tiles_share_their_halo():
    assert cost(80, 8, 16, 16, 3, 64, 8) < cost(80, 4, 32, 16, 3, 64, 8)


def test_gathers_in_flight_hide_latency():
    assert cost(80, 8, 16, 16, 3, 64, 8) < cost(80, 8, 16, 16, 1, 64, 4)


def test_a_second_pass_over_the_output_channels_gathers_twice():
    assert cost(80, 8, 16, 16, 3, 32, 8) > 1.5 * cost(80, 8, 16, 16, 3, 64, 8)


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("precision", ["fp16", "fp32"])
def test_the_choice_is_a_candidate_that_can_be_launched(arch, precision):
    chosen = best_by_model(arch, precision)
    assert chosen in set(candidates(precision))
    found = estimate(chosen, arch, precision)
    assert found.shared <= blocks.SHARED_LIMIT
    assert found.registers <= blocks.MAX_REGISTERS
    assert 1 <= found.warps <= blocks.LIMITS[arch].warps
    assert chosen not in blocks.SPILLING.get((arch, precision), ())


def test_the_model_knows_registers_and_shared_memory_of_what_is_shipped():
    """Against the assembler's numbers: within a third, and never too little shared memory."""
    for kernel in load_index().kernels:
        if kernel.alignment == 1 or not kernel.registers:
            continue
        arch = int(kernel.arch[3:])
        found = estimate(choose_blocks(arch, kernel.precision), arch, kernel.precision)
        assert found.registers == pytest.approx(kernel.registers, rel=0.34), kernel.file
        assert found.shared >= kernel.shared_bytes, kernel.file


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("{", ""), ('"warps": 4', '"warps": 3'), ('"warps": 4', '"warps": true'),
        ('"warps": 4', '"wraps": 4'), ('"unroll": 1', '"unroll": ' + "9" * 5000), ("0.5", "NaN"),
        ("0.5", "1e999"), ('"NVIDIA Test"', "null"), ('"blocks": {', '"blocks": [], "b": {'),
    ],
)  # fmt: skip
def test_a_table_that_cannot_be_is_named(tmp_path, monkeypatch, old, new):
    path = tmp_path / "measured.json"
    monkeypatch.setattr(blocks, "MEASURED", path)
    blocks.record(89, "fp16", SMALL, 0.5, "NVIDIA Test")
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(DataError, match=r"measured\.json"):
        choose_blocks(89, "fp16")


def test_a_measured_shape_goes_before_the_model(tmp_path, monkeypatch):
    monkeypatch.setattr(blocks, "MEASURED", tmp_path / "measured.json")
    assert choose_blocks(89, "fp16") == best_by_model(89, "fp16") != SMALL
    blocks.record(89, "fp16", SMALL, 0.5, "NVIDIA Test")
    assert choose_blocks(89, "fp16") == SMALL
    assert choose_blocks(86, "fp16") == best_by_model(86, "fp16")
    assert choose_blocks(89, "fp32") == best_by_model(89, "fp32")
    blocks.record(89, "fp32", SMALL, 0.7, "NVIDIA Test")
    table = json.loads((tmp_path / "measured.json").read_text())
    assert table["sm_89"]["fp16"]["gpu"] == "NVIDIA Test"
    assert set(table["sm_89"]) == {"fp16", "fp32"}
