"""A narrow SVDN exported in every form, pictures to calibrate on, and pairs to judge by."""

from importlib.util import find_spec

missing = [n for n in ("torch", "onnx", "onnxsim", "onnxscript", "safetensors") if not find_spec(n)]
if missing:  # the other packages' tests run without these
    collect_ignore_glob = ["test_*.py"]
else:
    import cv2
    import numpy as np
    import pytest
    import torch
    from safetensors.torch import save_file

    from calibration.calibration_set import CalibrationSet
    from edge_restore.media.images import write_png
    from edge_restore.models.cards import FileDigest, Score, WeightsCard, card_path
    from edge_restore.storage.files import sha256
    from export import exporter
    from train.networks import create

    WIDTH = 8
    torch.set_num_threads(min(2, torch.get_num_threads()))

    def picture(seed, size=(64, 96)):
        """A frame with edges and noise, uint8 RGB."""
        random = np.random.default_rng(seed)
        canvas = np.full((*size, 3), random.integers(40, 200, 3), np.uint8)
        for _ in range(40):
            y, x = random.integers(0, size[0]), random.integers(0, size[1])
            canvas[y : y + 14, x : x + 10] = random.integers(0, 256, 3)
        return np.clip(canvas + random.normal(0, 3, canvas.shape), 0, 255).astype(np.uint8)

    def save_weights(folder, network, name, arguments):
        path = folder / f"{name}-weights.safetensors"
        save_file({k: v.contiguous() for k, v in network.state_dict().items()}, str(path))
        WeightsCard(
            network=name,
            arguments=arguments,
            parameters=sum(p.numel() for p in network.parameters()),
            multiple=network.multiple,
            weights=FileDigest(path.name, sha256(path), path.stat().st_size),
            recipe={},
            data={"pack_sha256": "0" * 64, "files": ["photo.png"]},
            training={"steps": 1, "minutes": 1.0, "machine": "a test", "torch": "2"},
            scores=(Score("validation", 2, 20.0, 0.5, 21.5, 0.6),),
            licence="Apache-2.0",
            command="python -m train run recipe.toml",
        ).write(card_path(path))
        return path

    def export(folder, weights, name, file, **options):
        form = exporter.Options(form=options.pop("form", "camera"), **options)
        exporter.export(name, weights, folder / file, form, name=name, command="python -m export")
        return folder / file

    @pytest.fixture(scope="session")
    def network():
        torch.manual_seed(0)
        net = create("svdn", width=WIDTH)
        with torch.no_grad():
            for parameter in net.parameters():
                if parameter.dim() == 1:
                    parameter.add_(0.1 * torch.randn_like(parameter))
            torch.nn.init.xavier_uniform_(net.tail.weight)
            for last in (net.neck.ow1, net.neck.ow2[3]):
                last.weight.normal_(0, 0.1)
        return net.eval()

    @pytest.fixture(scope="session")
    def models(network, tmp_path_factory):
        """The forms of one network by name: fp32, float, gridsample-fp16, plugin-fp16."""
        folder = tmp_path_factory.mktemp("models")
        weights = save_weights(folder, network, "svdn", {"width": WIDTH})
        half = {"precision": "fp16"}
        return {
            "weights": weights,
            "fp32": export(folder, weights, "svdn", "svdn.onnx"),
            "float": export(folder, weights, "svdn", "svdn-float.onnx", form="float"),
            "fixed": export(folder, weights, "svdn", "svdn-fixed.onnx", size=(32, 48)),
            "gridsample-fp16": export(
                folder, weights, "svdn", "svdn-gs-fp16.onnx", deformable="GridSample", **half
            ),
            "plugin-fp16": export(
                folder, weights, "svdn", "svdn-plugin-fp16.onnx", deformable="plugin", **half
            ),
        }

    @pytest.fixture(scope="session")
    def lmfn_network():
        torch.manual_seed(1)
        net = create("lmfn", width=8)
        with torch.no_grad():
            torch.nn.init.xavier_uniform_(net.tail[0].weight)
        return net.eval()

    @pytest.fixture(scope="session")
    def lmfn(lmfn_network, tmp_path_factory):
        folder = tmp_path_factory.mktemp("lmfn")
        weights = save_weights(folder, lmfn_network, "lmfn", {"width": 8})
        return export(folder, weights, "lmfn", "lmfn.onnx")

    @pytest.fixture(scope="session")
    def frames():
        return CalibrationSet.of([(f"{seed}.png", picture(seed)) for seed in range(4)])

    @pytest.fixture(scope="session")
    def frames_file(frames, tmp_path_factory):
        path = tmp_path_factory.mktemp("frames") / "frames.npz"
        frames.save(path)
        return path

    @pytest.fixture(scope="session")
    def pairs(tmp_path_factory):
        """A folder of three pairs, of 64x96."""
        folder = tmp_path_factory.mktemp("pairs")
        for side in ("blurred", "sharp"):
            (folder / side).mkdir()
        for seed in range(10, 13):
            sharp = picture(seed)
            write_png(folder / "sharp" / f"{seed}.png", sharp)
            write_png(folder / "blurred" / f"{seed}.png", cv2.blur(sharp, (5, 1)))
        return folder
