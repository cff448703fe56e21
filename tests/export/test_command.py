"""`python -m export` from end to end, and what it says to bad input."""

import re
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
import torch

from edge_restore.models.cards import FileDigest, card_path, verify
from export.__main__ import main, size

REPOSITORY = Path(__file__).parents[2]


def test_exports_and_reports(weights, tmp_path, capsys):
    out = tmp_path / "exported.onnx"
    arguments = ["svdn", "--weights", str(weights), "--out", str(out), "--deformable", "GridSample",
                 "--size", "12x16", "--name", "small"]  # fmt: skip
    assert main(arguments) == 0
    said = capsys.readouterr().out
    assert "11x15: ONNX Runtime and torch differ by" in said
    assert "offsets of the deformable convolutions reached" in said
    card = verify(card_path(out))
    assert (card.name, card.form, card.deformable) == ("small", "float", "GridSample")
    assert card.input.shape == (1, 3, 12, 16)
    assert card.command.startswith("python -m export svdn --weights svdn.safetensors --out")
    assert str(tmp_path) not in card.command
    assert "GridSample" in {node.op_type for node in onnx.load(str(out)).graph.node}


def test_exports_fp16_for_the_plugin(weights, tmp_path, capsys):
    out = tmp_path / "svdn-plugin-fp16.onnx"
    arguments = ["svdn", "--weights", str(weights), "--out", str(out), "--form", "camera",
                 "--deformable", "plugin", "--precision", "fp16"]  # fmt: skip
    assert main(arguments) == 0
    said = capsys.readouterr().out
    assert re.search(r"75x101: ONNX Runtime and torch differ by .*, PSNR \d+\.\d dB", said)
    assert "FP16, with 9 nodes in FP32" in said
    card = verify(card_path(out))
    assert (card.precision, card.deformable) == ("fp16", "plugin")


@pytest.mark.parametrize("option", [("--precision", "int8"), ("--deformable", "Plugin")])
def test_options_that_are_none(option, weights, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["svdn", "--weights", str(weights), "--out", str(tmp_path / "x.onnx"), *option])
    assert ended.value.code == 2
    assert "invalid choice" in capsys.readouterr().err


@pytest.fixture
def refused(weights, tmp_path, capsys):
    """Runs the command with changed options; asserts exit code 2 and that nothing was written."""

    def refused(**changes):
        options = {"weights": weights, "out": tmp_path / "out.onnx", **changes}
        network = options.pop("network", "svdn")
        before = set(tmp_path.rglob("*"))
        flags = [text for key, value in options.items() for text in (f"--{key}", str(value))]
        assert main([network, *flags]) == 2
        assert set(tmp_path.rglob("*")) == before
        message = capsys.readouterr().err
        assert message.startswith("export: error: ")
        assert "expected: " in message
        assert "hint:" in message
        return message

    return refused


def test_missing_weights(refused, tmp_path):
    assert "there are no weights at" in refused(weights=tmp_path / "none.safetensors")


def test_a_pickle(refused, tmp_path, weights, network):
    path = tmp_path / "pickle.safetensors"
    torch.save(network.state_dict(), path)
    assert "is a pickle" in refused(weights=path)


def test_weights_without_a_card(refused, weights):
    card_path(weights).unlink()
    assert "there is no card" in refused()


def test_weights_that_are_not_what_the_card_says(refused, weights):
    with weights.open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"?")
    assert "does not match its card" in refused()


def test_tensors_of_another_network(refused, save_weights, network):
    tensors = network.state_dict()
    tensors["fusion.weight"] = torch.zeros(3, 3)
    message = refused(weights=save_weights(tensors))
    assert "does not hold weights of svdn" in message
    assert "fusion.weight" in message


def test_tensors_of_another_width(refused, save_weights, network):
    message = refused(weights=save_weights(network.state_dict(), arguments={"width": 16}))
    assert "does not hold weights of svdn" in message


def test_a_card_of_an_unknown_network(refused, save_weights, network):
    message = refused(weights=save_weights(network.state_dict(), network="other"))
    assert "no network is called 'other'" in message


def test_a_card_of_another_network(refused, monkeypatch):
    from export import exporter

    monkeypatch.setitem(exporter.NETWORKS, "other", object)
    message = refused(network="other")
    assert "holds weights of svdn, not of other" in message


def test_a_model_card_where_a_weights_card_is_expected(refused, weights, tmp_path):
    card = card_path(weights)
    text = card.read_text().replace("weights_card", "model_card")
    card.write_text(text)
    assert "is not a card that can be used" in refused()


def test_unknown_network(refused):
    message = refused(network="sdvn")
    assert "no network is called 'sdvn'" in message
    assert "one of: svdn" in message


def test_opset_too_low(refused):
    assert "opset 18 cannot be exported" in refused(opset=18)


@pytest.mark.parametrize("opset", [20, 22])
def test_grid_sample_of_an_opset_that_tensorrt_misreads(refused, opset):
    message = refused(opset=opset, deformable="GridSample")
    assert f"GridSample of opset {opset} calls its mode 'linear'" in message
    assert "use --opset 19" in message


@pytest.mark.parametrize("text", ["720", "720x", "720x-2", "720*1280", "axb", "", "1e2x4"])
def test_bad_size(refused, text):
    assert f"'{text}' is not a size" in refused(size=text)


@pytest.mark.parametrize(("text", "nearest"), [("45x80", "46x80"), ("1x1", "2x2")])
def test_size_that_is_no_multiple(refused, text, nearest):
    message = refused(size=text)
    assert "multiples of 2" in message
    assert f"--size {nearest}" in message


def test_output_that_cannot_be_written(refused, tmp_path):
    assert "does not exist" in refused(out=tmp_path / "none" / "out.onnx")
    assert "is a directory" in refused(out=_directory(tmp_path / "folder.onnx"))
    assert "does not end in .onnx" in refused(out=tmp_path / "out.pt")
    assert "is a directory" in refused(out=_with_directory_for_card(tmp_path / "x.onnx"))


def _directory(path):
    path.mkdir()
    return path


def _with_directory_for_card(path):
    card_path(path).mkdir()
    return path


def test_a_card_that_names_a_path(refused, save_weights, network, weights):
    digest = FileDigest("../elsewhere.safetensors", "0" * 64, 1)
    assert "file" in refused(weights=save_weights(network.state_dict(), weights=digest))


def test_sizes():
    assert size("dynamic") is None
    assert size("720x1280") == (720, 1280)


def test_help_needs_no_torch():
    code = "import sys; sys.modules['torch'] = None; from export.__main__ import main; main()"
    found = subprocess.run(
        [sys.executable, "-c", code, "--help"], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert found.returncode == 0
    assert "--deformable" in found.stdout


def test_without_torch_the_message_says_what_to_install(tmp_path):
    code = "import sys; sys.modules['torch'] = None; from export.__main__ import main"
    command = [
        sys.executable,
        "-c",
        f"{code}; sys.exit(main())",
        "svdn",
        "--weights",
        "w",
        "--out",
        str(tmp_path / "o.onnx"),
    ]
    found = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert found.returncode == 2
    assert "pip install 'edge-restore[train,export]'" in found.stderr
