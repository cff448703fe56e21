"""DRCNet and FCN pass the exporter's parity in every form, with their sums in FP32."""

import onnx
import pytest
import torch

from edge_restore.models.cards import card_path, verify
from export import precision
from export.__main__ import main
from train.networks import create

ARGUMENTS = {
    "drcnet": {"width": 8},
    "fcn": {"width": 4, "repeats": 1, "raw_repeats": 1},
}


@pytest.fixture
def random_weights(save_weights):
    """Seeded weights of a narrow network that is not the identity.

    DRCNet multiplies its branches: in a narrow one with random weights the features grow to
    thousands, whose last bits are above a tolerance for pictures. Halved once, they stay below 4
    as in the full network.
    """

    def make(name):
        torch.manual_seed(0)
        network = create(name, **ARGUMENTS[name])
        with torch.no_grad():
            for key, parameter in network.named_parameters():
                parameter.add_(0.02 * torch.randn_like(parameter))
                if key == "stage1.encoder.2.normalisation.response.bias":
                    parameter.add_(1)  # so that pixels lie on both sides of the threshold
                if key == "fusion.weight":
                    parameter.mul_(0.5)
        return network, save_weights(
            network.state_dict(), name, network=name, arguments=ARGUMENTS[name],
            multiple=network.multiple,
        )  # fmt: skip

    return make


@pytest.mark.parametrize(
    ("form", "kind", "size"),
    [("float", "fp32", "dynamic"), ("camera", "fp16", "dynamic"), ("float", "fp16", "32x48")],
)
@pytest.mark.parametrize("name", ["drcnet", "fcn"])
def test_parity(name, form, kind, size, random_weights, tmp_path):
    network, weights = random_weights(name)
    out = tmp_path / f"{name}-exported.onnx"
    arguments = [name, "--weights", str(weights), "--out", str(out), "--form", form, "--precision",
                 kind, "--size", size]  # fmt: skip
    assert main(arguments) == 0
    card = verify(card_path(out))
    assert (card.network, card.deformable) == (name, "none")
    assert (card.multiple, card.parameters) == (
        network.multiple, sum(p.numel() for p in network.parameters()),
    )  # fmt: skip
    if kind == "fp16":
        graph = onnx.load(str(out)).graph
        sums = {n.name for n in graph.node if n.op_type in precision.REDUCTIONS}
        assert sums
        assert sums <= set(card.fp32_islands)


def test_the_masked_normalisation_is_one_island(random_weights, tmp_path):
    """From the masked sums to the division, no tensor of the size H * W is rounded to FP16."""
    _, weights = random_weights("drcnet")
    out = tmp_path / "exported.onnx"
    assert main(["drcnet", "--weights", str(weights), "--out", str(out)]) == 0
    kept = set(precision.islands(onnx.load(str(out))))
    scope = "stage1.encoder.3.normalisation/"
    arithmetic = {"Mul", "Sub", "Div", "Sqrt", "Add", "ReduceSum", "Pow", "Clip", "Max"}
    inside = [n for n in onnx.load(str(out)).graph.node if n.name.startswith(scope)]
    assert {"ReduceSum", "Sqrt", "Div"} <= {n.op_type for n in inside}
    assert [n.name for n in inside if n.op_type in arithmetic and n.name not in kept] == []


@pytest.mark.parametrize("name", ["drcnet", "fcn"])
def test_the_pipeline_runs_them(name, random_weights, tmp_path):
    """A camera form exported here restores a clip whose sides are no multiples of anything."""
    pytest.importorskip("av")
    from edge_restore.cli import main as edge_restore
    from edge_restore.report.latency_report import LatencyReport
    from tests.edge_restore.clips import facts, write_clip

    _, weights = random_weights(name)
    model, out, report = (tmp_path / file for file in ("m.onnx", "out.mp4", "report.json"))
    assert main([name, "--weights", str(weights), "--out", str(model), "--form", "camera"]) == 0
    clip = write_clip(tmp_path / "clip.mp4", width=70, height=54, gaps=(3000,) * 4)
    command = ["run", str(clip), "--out", str(out), "--model", str(model), "--report", str(report)]
    assert edge_restore(command) == 0
    assert facts(out)["size"] == (70, 54)
    written = LatencyReport.read(report)
    assert (written.frames_in, written.frames_out) == (4, 4)
