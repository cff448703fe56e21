"""ONNX models: graphs that are damaged, lie about themselves, or compute nonsense.

The card's hash is made anew for most, so that the graph itself is looked at. A valid graph that
computes something else is another network, of which nothing could tell. Silently wrong is

- a file that runs though its card has another hash,
- a graph with weights outside the file, which no hash covers,
- a graph with a weight that is not finite, and
- a graph whose output on the frames of the clip is not finite, or of another size than they.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from tests.attacks import corpus, mutate
from tests.attacks.kind import CHANGED, EQUAL, SILENT, Attack, Kind, Outcome, Verdict
from tests.attacks.sandbox import Sandbox

_FORMS = ("camera", "float")


class OnnxKind(Kind):
    """See the module."""

    name = "onnx"
    imports = ("numpy", "cv2", "av", "onnx")

    def make(self) -> None:
        from tests.edge_restore.onnx_models import write_model

        for form in _FORMS:
            write_model(self.corpus, form, form)
        corpus.clip(self.corpus / "clip.mkv", frames=2, audio="")

    def measure(self, sandbox: Sandbox) -> None:
        self.cards = {
            form: json.loads((self.corpus / f"{form}.card.json").read_bytes()) for form in _FORMS
        }
        self.models = {form: (self.corpus / f"{form}.onnx").read_bytes() for form in _FORMS}
        self.sound = {}
        for form in _FORMS:
            for program in ("run", "layers"):

                def attack(work: Path, form: str = form, program: str = program) -> Attack:
                    self._write(work, form, self.models[form], None)
                    return self._command(work, program, "nothing")

                outcome = corpus.sound_run(f"{form}-{program}", attack, sandbox)
                if program == "run":
                    self.sound[form] = sandbox.call(corpus.video_facts, outcome.work / "o.mp4")

    def attack(self, rng: random.Random, work: Path) -> Attack:
        form = rng.choice(_FORMS)
        program = "layers" if rng.random() < 0.1 else "run"
        if rng.random() < 0.02:
            fed = f"the model is a {corpus.odd_file(rng, work / 'm.onnx')}"
            corpus.link(self.corpus / f"{form}.card.json", work / "m.card.json")
            return self._command(work, program, fed, lambda _: (SILENT, "ran without a model"))
        how = rng.random()
        refuse = ""
        if how < 0.4:
            data, fed = mutate.damage(self.models[form], rng)
        else:
            data, fed, refuse = _graph(self.models[form], rng, work)
        old = rng.random() < 0.1 and data != self.models[form]
        self._write(work, form, data, None if old else _digest(data))
        if old:
            fed, refuse = f"{fed}; the card has the old hash", "its hash is not the card's"
        backend = "openvino" if rng.random() < 0.02 else "onnxruntime"
        return self._command(
            work, program, f"{form}: {fed}",
            lambda outcome: self._judge(outcome, form, program, refuse), backend,
        )  # fmt: skip

    def _write(self, work: Path, form: str, data: bytes, digest: str | None) -> None:
        (work / "m.onnx").write_bytes(data)
        card = json.loads(json.dumps(self.cards[form]))
        card["onnx"] = {
            "file": "m.onnx",
            "sha256": digest or card["onnx"]["sha256"],
            "bytes": len(data),
        }
        (work / "m.card.json").write_text(json.dumps(card))

    def _command(
        self, work: Path, program: str, fed: str, judge: Any = None, backend: str = "onnxruntime"
    ) -> Attack:
        if program == "layers":
            return Attack("calibration", ["layers", "m.onnx"], fed, judge)
        corpus.link(self.corpus / "clip.mkv", work / "clip.mkv")
        command = ["run", "clip.mkv", "--out", "o.mp4", "--model", "m.onnx"]
        command += ["--backend", backend, "--threads", "1"]
        return Attack("edge-restore", command, fed, judge, outputs=("o.mp4",))

    def _judge(self, outcome: Outcome, form: str, program: str, refuse: str) -> Verdict:
        if program == "layers" and "data" in refuse:
            return EQUAL, "only listed"
        if refuse:
            return SILENT, refuse
        if program == "layers":
            return EQUAL, "only listed"
        if corpus.video_facts(outcome.work / "o.mp4") == self.sound[form]:
            return EQUAL, ""
        if problem := _nonsense(outcome.work, form):
            return SILENT, problem
        return CHANGED, ""


def _digest(data: bytes) -> str:
    import hashlib

    return hashlib.sha256(data).hexdigest()


def _nonsense(work: Path, form: str) -> str:
    """What is wrong with the graph's output on the clip's frames, in ONNX Runtime itself."""
    import av
    import numpy as np
    import onnx
    import onnxruntime as ort
    from onnx import numpy_helper

    for tensor in onnx.load(work / "m.onnx").graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            return f"the weight {tensor.name} is not finite"
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = ort.InferenceSession(str(work / "m.onnx"), options, ["CPUExecutionProvider"])
    (port,) = session.get_inputs()
    with av.open(str(work / "clip.mkv")) as container:
        for frame in container.decode(video=0):
            image = frame.to_ndarray(format="rgb24")[None]
            if form == "float":
                image = (image.transpose(0, 3, 1, 2) / np.float32(255)).astype(np.float32)
            found = session.run(None, {port.name: np.ascontiguousarray(image)})[0]
            if found.shape != image.shape:
                return f"the output is {found.shape}, the input {image.shape}"
            if found.dtype.kind == "f" and not np.isfinite(found).all():
                return "the output is not finite"
    return ""


def _graph(data: bytes, rng: random.Random, work: Path) -> tuple[bytes, str, str]:
    """A mutated graph, what was done, and why it has to be refused ("" where nobody could tell)."""
    import numpy as np
    import onnx
    from onnx import numpy_helper

    model = onnx.load_from_string(data)
    graph = model.graph
    node, tensor = rng.choice(graph.node), rng.choice(graph.initializer)
    how = rng.randrange(13)
    if how == 0:
        value = rng.choice((np.nan, np.inf, -np.inf, 1e38))
        array = np.array(numpy_helper.to_array(tensor))
        array.reshape(-1)[rng.randrange(array.size)] = value
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
        return model.SerializeToString(), f"{tensor.name} holds {value}", ""
    if how == 1:
        del tensor.float_data[:]
        tensor.raw_data = b""
        return model.SerializeToString(), f"{tensor.name} has no data", "a tensor without data"
    if how == 2:
        dims = list(tensor.dims) or [1]
        dims[rng.randrange(len(dims))] = rng.choice((0, -1, 2**31, 2**40, 1, 7))
        del tensor.dims[:]
        tensor.dims.extend(dims)
        return model.SerializeToString(), f"{tensor.name} says it is {dims}", ""
    if how == 3:
        location = rng.choice(("outside.bin", "../other/outside.bin", "m.onnx"))
        (work / "outside.bin").write_bytes(
            numpy_helper.to_array(tensor).astype(np.float32).tobytes()
        )
        del tensor.float_data[:]
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=location)
        return (
            model.SerializeToString(),
            f"{tensor.name} lies in {location}",
            "weights outside the file",
        )
    if how == 4:
        graph.node.remove(node)
        return model.SerializeToString(), f"the node {node.output[0]} is missing", ""
    if how == 5:
        node.op_type = rng.choice(
            ("Relu", "Nope", "Loop", "Identity", "Reshape", "Sqrt", "Log", "Resize")
        )
        return model.SerializeToString(), f"{node.output[0]} is a {node.op_type}", ""
    if how == 6:
        node.domain = rng.choice(("com.microsoft", "evil", "ai.onnx.ml"))
        return model.SerializeToString(), f"{node.output[0]} is of {node.domain}", ""
    if how == 7:
        port = rng.choice((graph.input[0], graph.output[0]))
        port.name = rng.choice(("x", "", port.name + "2", "restored", "image"))
        return model.SerializeToString(), f"a port is called '{port.name}'", ""
    if how == 8:
        port = rng.choice((graph.input[0], graph.output[0]))
        port.type.tensor_type.elem_type = rng.choice((0, 1, 2, 6, 7, 8, 10, 11, 99))
        return (
            model.SerializeToString(),
            f"{port.name} is of type {port.type.tensor_type.elem_type}",
            "",
        )
    if how == 9:
        shape = rng.choice((graph.input[0], graph.output[0])).type.tensor_type.shape
        rng.choice(shape.dim).dim_value = rng.choice((0, -1, 1, 2, 4, 2**40))
        return model.SerializeToString(), "a dimension of a port is another", ""
    if how == 10:
        if not node.attribute:
            node.attribute.add(name="pads", type=onnx.AttributeProto.INTS, ints=[1] * 4)
        attribute = rng.choice(node.attribute)
        if attribute.ints:
            attribute.ints[rng.randrange(len(attribute.ints))] = rng.choice(
                (0, -1, 3, 2**31, 2**62)
            )
        else:
            attribute.i = rng.choice((0, -1, 1, 99, 2**40))
        return model.SerializeToString(), f"{attribute.name} of {node.output[0]} is another", ""
    if how == 11:
        model.opset_import[0].version = rng.choice((0, 1, 7, 99, 2**40, -1))
        return model.SerializeToString(), f"opset {model.opset_import[0].version}", ""
    extra = rng.choice((graph.input, graph.output)).add()
    extra.CopyFrom(graph.input[0])
    extra.name = "another"
    return model.SerializeToString(), "one port more", ""


KIND = OnnxKind
