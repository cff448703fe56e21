"""The papers' claims, the floors that arithmetic sets, and the verdicts."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edge_restore.bench import claims, costs
from edge_restore.bench.claims import Claim, judge
from edge_restore.bench.peaks import Peaks
from edge_restore.errors import InternalError, OptionError

BY_ID = {claim.id: claim for claim in claims.claims()}
SVDN, LMFN = BY_ID["svdn-table1-ours-b"], BY_ID["lmfn-table1-lmfn"]


def test_every_paper_with_a_time_table_is_there() -> None:
    """SVDN's Table 1 has seven rows with a time, LMFN's tables ten and eight, DRCNet's six."""
    timed = [c for c in claims.claims() if c.milliseconds is not None]
    rows = {(c.paper, c.where): 0 for c in timed}
    for claim in timed:
        rows[claim.paper, claim.where] += 1
    assert rows["svdn", "Table 1"] == 7
    assert rows["lmfn", "Table 1"] == 10 and rows["lmfn", "Table 2"] == 8
    assert rows["drcnet", "Table 4"] == 6
    assert len(BY_ID) == len(claims.claims())


def test_every_hardware_has_its_peaks() -> None:
    named = {c.hardware for c in claims.claims() if c.hardware}
    assert named <= claims.hardware().keys()
    for peaks in claims.hardware().values():
        assert peaks.fp32 and peaks.bandwidth and peaks.source


def test_svdn_on_a_1080_ti_cannot_be() -> None:
    """380 GFLOP over 11.34 TFLOP/s are 33.5 ms, and 10 are claimed. FP16 is slower there."""
    found = judge(SVDN, {"network": 1.0})
    assert found.verdict == "cannot be" and found.floor is not None
    assert found.floor.milliseconds == pytest.approx(2 * 189.868 / 11.34, rel=1e-3)
    assert (found.floor.precision, found.floor.bound) == ("fp32", "operations")
    assert "380 GFLOP" in found.why and "33.5 ms" in found.why


def test_what_is_not_given_is_not_guessed() -> None:
    found = judge(BY_ID["lmfn-table1-lmfn"], {"network": 1.0})
    assert found.verdict == "cannot be compared"
    # 132 GFLOP over what its matrix units do in FP16
    assert found.why.startswith("size of the picture not given; 1280x720 takes at least ")
    least = 2 * costs.frame_cost("lmfn", 720, 1280).macs / claims.hardware()[LMFN.hardware].fp16
    assert f"{1000 * least:.1f} ms there in FP16" in found.why
    found = judge(BY_ID["drcnet-table4-base-dfr"])
    assert found.why == "hardware and size of the picture not given"
    assert judge(BY_ID["svdn-table1-srn"]).why == "not one of this project's networks"
    assert "only words" in judge(BY_ID["svdn-section4-3-versus-tao"]).why


def modest(milliseconds: float) -> Claim:
    return replace(SVDN, milliseconds=milliseconds)


def test_met_and_not_met_are_by_the_network_alone() -> None:
    times = {"network": 50.0, "host to host": 90.0, "camera to sink": 120.0}
    assert judge(modest(60.0), times).verdict == "met"
    found = judge(modest(40.0), times)
    assert found.verdict == "not met" and "50.0 ms for the network here" in found.why
    assert judge(modest(40.0)).verdict == "not measured"


def test_a_floor_can_be_bytes() -> None:
    slow = Peaks("a bus", "a test", 1e15, None, None, 1e6)
    cost = costs.frame_cost("svdn", 360, 640)
    found = claims.floor(cost, 360 * 640, slow, ["fp32", "fp16"])
    assert found is not None and found.bound == "bytes"
    expected = (cost.parameters * 4 + 6 * 360 * 640) / 1e6
    assert found.milliseconds == pytest.approx(1000 * expected)
    assert claims.floor(cost, 1, slow, ["fp16"]) is None


def test_the_cost_of_a_size_between() -> None:
    counted = costs.frame_cost("lmfn", 720, 1280)
    near = costs.frame_cost("lmfn", 540, 960)
    assert near.macs == pytest.approx(counted.macs * 540 * 960 / (720 * 1280), rel=0.05)
    assert counted.moved_bytes(2) == 2 * counted.moved_numbers
    with pytest.raises(OptionError, match="cost of 'srn' was not counted"):
        costs.frame_cost("srn", 720, 1280)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"milliseconds": -1}, "milliseconds is -1"),
        ({"network": "srn"}, 'network is "srn"'),
        ({"where": ""}, 'where is ""'),
    ],
)
def test_a_damaged_file_is_our_own_bug(
    change: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = json.loads(claims.FILE.read_text(encoding="utf-8"))
    document["claims"][3] |= change
    (tmp_path / "claims.json").write_text(json.dumps(document))
    monkeypatch.setattr(claims, "FILE", tmp_path / "claims.json")
    with pytest.raises(InternalError, match=message):
        claims.claims.__wrapped__()
