"""An SVDN small enough for tests, whose deformable layers sample several pixels away."""

from importlib.util import find_spec

missing = [name for name in ("torch", "onnx", "onnxsim", "onnxscript") if not find_spec(name)]
if missing:  # the other packages' tests run without these
    collect_ignore_glob = ["test_*.py"]
else:
    import onnx
    import pytest
    import torch
    from safetensors.torch import save_file

    from edge_restore.models.cards import FileDigest, Score, WeightsCard, card_path
    from edge_restore.storage.files import sha256
    from export import graph
    from train.networks import create

    WIDTH = 8
    torch.set_num_threads(min(2, torch.get_num_threads()))

    @pytest.fixture(scope="session")
    def network():
        """Its restored image depends on offsets that reach beyond the border of small images."""
        torch.manual_seed(0)
        net = create("svdn", width=WIDTH)
        with torch.no_grad():
            for parameter in net.parameters():
                if parameter.dim() == 1:  # biases and PReLU's slopes
                    parameter.add_(0.1 * torch.randn_like(parameter))
            torch.nn.init.xavier_uniform_(net.tail.weight)
            for last in (net.neck.ow1, net.neck.ow2[3]):
                last.weight.normal_(0, 0.1)
        return net.eval()

    @pytest.fixture(scope="session")
    def float_graph(network):
        return graph.build(network, form="float", size=None, opset=19)

    @pytest.fixture(scope="session")
    def camera_graph(network):
        return graph.build(network, form="camera", size=None, opset=19)

    @pytest.fixture
    def save_weights(tmp_path):
        """Writes tensors as training does, with a card; the card's fields can be changed."""

        def save(tensors, name="svdn", **changes):
            path = tmp_path / f"{name}.safetensors"
            save_file(tensors, str(path))
            fields = {
                "network": "svdn",
                "arguments": {"width": WIDTH},
                "parameters": sum(t.numel() for t in tensors.values()),
                "multiple": 2,
                "weights": FileDigest(path.name, sha256(path), path.stat().st_size),
                "recipe": {},
                "data": {"pack_sha256": "0" * 64, "files": ["photo.png"]},
                "training": {"steps": 1, "minutes": 1.0, "machine": "a test", "torch": "2"},
                "scores": (Score("validation", 2, 20.0, 0.5, 21.5, 0.6),),
                "licence": "Apache-2.0",
                "command": "python -m train run recipe.toml",
            }
            WeightsCard(**{**fields, **changes}).write(card_path(path))
            return path

        return save

    @pytest.fixture
    def weights(network, save_weights):
        return save_weights(network.state_dict())

    @pytest.fixture
    def run():
        """Runs a graph with ONNX Runtime; skips where that has no kernel for DeformConv."""
        import onnxruntime
        from onnxruntime.capi.onnxruntime_pybind11_state import NotImplemented as NoKernel

        def run(model, **inputs):
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = 2
            options.log_severity_level = 4
            file = model.SerializeToString() if isinstance(model, onnx.ModelProto) else str(model)
            try:
                session = onnxruntime.InferenceSession(file, options, ["CPUExecutionProvider"])
            except NoKernel as error:
                pytest.skip(f"ONNX Runtime {onnxruntime.__version__}: {error}")
            return session.run(None, inputs)[0]

        return run

    @pytest.fixture
    def run_rounding():
        """Runs an FP16 graph so that every FP16 tensor is rounded, as `parity.check` does."""
        import onnxruntime

        from edge_restore.engine.rounding import with_kept_rounding

        def run_rounding(model, **inputs):
            options = onnxruntime.SessionOptions()
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
            options.intra_op_num_threads = 1
            whole = graph.finish(model)
            inferred = onnx.shape_inference.infer_shapes(whole, strict_mode=True, data_prop=True)
            kept = with_kept_rounding(whole, inferred).SerializeToString()
            session = onnxruntime.InferenceSession(kept, options, ["CPUExecutionProvider"])
            return session.run(None, inputs)[0]

        return run_rounding
