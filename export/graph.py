"""A torch network as an ONNX graph: standard DeformConv nodes, names that tell the module.

Two forms. "float" takes and gives RGB as float32 (1, 3, H, W) in [0, 1]; the output is the
network's own, not clipped. "camera" takes and gives RGB as uint8 (1, H, W, 3) and has the
conversion inside: / 255, then clip to [0, 1], * 255, round half to even.

H and W are multiples of the network's `multiple`; padding and cropping other sizes is for whoever
runs the graph (`edge_restore.media.padding`).
"""

from __future__ import annotations

import ast
import copy
import logging
import warnings
from collections import Counter

import onnx
import torch
from torch import Tensor, nn

from edge_restore.errors import InternalError, OptionError
from edge_restore.machine import optional
from train.networks.deform_conv import DeformConv2d

INPUT, OUTPUT = "image", "restored"
OPSETS = range(19, 24)
"""DeformConv came with opset 19; ONNX Runtime runs it up to 23."""

_SCOPES = "pkg.torch.onnx.name_scopes"


def build(
    network: nn.Module, *, form: str, size: tuple[int, int] | None, opset: int
) -> onnx.ModelProto:
    """The simplified and checked graph of `network`, input `image`, output `restored`.

    A node is called after its module and its operator, ``neck.deform1/DeformConv``; a tensor after
    the node that makes it; a constant after the parameter, or the first node that takes it. The
    camera form's conversion is called ``camera/...``, all else is the same in both forms.

    Args:
        network: (1, 3, H, W) -> the same, with an attribute `multiple`. Not changed.
        form: "float" or "camera".
        size: (height, width), or None for dynamic ones named "height" and "width".
        opset: one of `OPSETS`.

    Raises:
        OptionError: `opset` or `size` cannot be had.
        DependencyError: a package of the extra `export` is missing.
        InternalError: the network uses something that cannot be exported.
    """
    multiple = int(network.multiple)  # type: ignore[arg-type]
    if opset not in OPSETS:
        raise OptionError(
            f"opset {opset} cannot be exported",
            expected=f"{OPSETS[0]} (the first with DeformConv) to {OPSETS[-1]}",
            hint="leave --opset away; engines without DeformConv take --deformable GridSample",
        )
    if size is not None and (min(size) < 1 or any(side % multiple for side in size)):
        nearest = "x".join(str(max(1, -(-side // multiple)) * multiple) for side in size)
        raise OptionError(
            f"the size {size[0]}x{size[1]} does not suit the network",
            expected=f"a height and a width that are multiples of {multiple}",
            hint=f"use --size {nearest}; frames of other sizes are padded to it when it runs",
        )
    model = _trace(_Form(_exportable(network), form), multiple, form, size, opset)
    _name_nodes(model)
    model.graph.name = str(network.name)
    model = simplify(model)
    _name_ports(model, form, size)
    return finish(model)


def simplify(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph with constants folded and nodes without effect removed."""
    onnxsim = optional.require("onnxsim", needed_for="exporting")
    simplified, same = onnxsim.simplify(model)
    if not same:
        raise InternalError("onnxsim changed what the graph computes")
    assert isinstance(simplified, onnx.ModelProto)
    return simplified


def finish(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model` without the notes that tools left in it, after every check of onnx.

    Raises:
        InternalError: the graph is not valid ONNX, or its shapes cannot be inferred.
    """
    del model.graph.value_info[:]
    del model.metadata_props[:]
    try:
        onnx.checker.check_model(model, full_check=True)
        onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise InternalError(f"the exported graph is not valid: {error}") from error
    return model


def finish_custom(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model`, which has nodes of our own, after the checks that onnx can make of it.

    The value_info stays: it holds the types and shapes of what our nodes give, without which
    nothing after them could be checked.

    Raises:
        InternalError: the graph is not valid ONNX, or a tensor has no type.
    """
    try:
        onnx.checker.check_model(model)
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise InternalError(f"the exported graph is not valid: {error}") from error
    typed = {v.name for v in (*inferred.graph.value_info, *inferred.graph.output)}
    if untyped := [t for node in model.graph.node for t in node.output if t not in typed]:
        raise InternalError(f"the tensor '{untyped[0]}' of the exported graph has no type")
    return model


class _Form(nn.Module):
    """The network between the conversions of its form. Whatever runs in `network` has its scope."""

    def __init__(self, network: nn.Module, form: str) -> None:
        super().__init__()
        self.network, self.camera = network, form == "camera"

    def forward(self, image: Tensor) -> Tensor:
        if not self.camera:
            restored: Tensor = self.network(image)
            return restored
        # TensorRT takes uint8 only straight into a Cast, and gives it only straight from one.
        restored = self.network(image.float().permute(0, 3, 1, 2) * (1 / 255))
        levels = (restored.clamp(0, 1) * 255).round()
        return levels.permute(0, 2, 3, 1).to(torch.uint8)


class _ExportableDeformConv(nn.Module):
    """Stands in for a `DeformConv2d` while tracing: becomes one node of ONNX DeformConv."""

    def __init__(self, layer: DeformConv2d) -> None:
        super().__init__()
        self.weight, self.bias = layer.weight, layer.bias
        self.attributes = {
            "kernel_shape": list(layer.weight.shape[2:]),
            "strides": [layer.stride] * 2,
            "pads": [layer.padding] * 4,
            "dilations": [layer.dilation] * 2,
            "group": layer.groups,
            "offset_group": layer.offset_groups,
        }

    def forward(self, image: Tensor, offset: Tensor, mask: Tensor) -> Tensor:
        return torch.onnx.ops.symbolic(
            "DeformConv",
            (image, self.weight, offset, self.bias, mask),
            self.attributes,  # type: ignore[arg-type]
            dtype=image.dtype,
            shape=(image.shape[0], self.weight.shape[0], *offset.shape[2:]),
            version=19,
        )


def _exportable(network: nn.Module) -> nn.Module:
    """A copy of `network` with stand-ins for its deformable convolutions."""
    network = copy.deepcopy(network).eval()
    for name, layer in list(network.named_modules()):
        if isinstance(layer, DeformConv2d):
            network.set_submodule(name, _ExportableDeformConv(layer))
    return network


def _trace(
    network: nn.Module, multiple: int, form: str, size: tuple[int, int] | None, opset: int
) -> onnx.ModelProto:
    height, width = size or (8 * multiple, 12 * multiple)
    if form == "camera":
        image, axes = torch.zeros(1, height, width, 3, dtype=torch.uint8), (1, 2)
    else:
        image, axes = torch.zeros(1, 3, height, width), (2, 3)
    # Told that the sides are multiples, torch proves that the network's own padding and cropping
    # do nothing, and leaves them out. (0 and 1 are never dynamic for torch.export.)
    blocks = [torch.export.Dim(f"{axis}_blocks", min=2) for axis in ("height", "width")]
    dynamic = None if size else ({a: multiple * b for a, b in zip(axes, blocks, strict=True)},)
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)  # it warns that torchvision, which nobody asked for, is missing
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                network, (image,), dynamo=True, opset_version=opset, dynamic_shapes=dynamic,
                input_names=[INPUT], output_names=[OUTPUT], verbose=False,
            )  # fmt: skip
    except ImportError as error:
        raise optional.explained(
            error, "" if error.name else "onnxscript", needed_for="exporting"
        ) from error
    except torch.onnx.OnnxExporterError as error:
        raise InternalError(f"torch cannot export the network: {error}") from error
    finally:
        logger.setLevel(level)
    assert program is not None
    model = program.model_proto
    # The oldest that this opset allows, because engines refuse files newer than themselves.
    model.ir_version = onnx.helper.find_min_ir_version_for(model.opset_import)
    return model


def _name_nodes(model: onnx.ModelProto) -> None:
    """Call nodes after their modules, tensors after their nodes, constants after their parameters.

    The exporter calls a node conv2d_17, but records the module that it came from. Nodes that it
    made up itself have no record and count as the network's own.
    """
    graph = model.graph
    new: dict[str, str] = {}
    unnamed = set()
    for tensor in graph.initializer:
        if tensor.name.startswith("network."):
            new[tensor.name] = _unscoped(tensor.name)
        else:
            unnamed.add(tensor.name)
    seen: Counter[str] = Counter()
    for node in graph.node:
        scopes = [p.value for p in node.metadata_props if p.key == _SCOPES]
        module = ast.literal_eval(scopes[0])[-2] if scopes else "network"
        path = _unscoped(module) if module.startswith("network") else "camera"
        name = f"{path}/{node.op_type}".removeprefix("/")
        seen[name] += 1
        node.name = name if seen[name] == 1 else f"{name}_{seen[name] - 1}"
        for number, output in enumerate(node.output):
            new[output] = node.name if len(node.output) == 1 else f"{node.name}:{number}"
        schema = onnx.defs.get_schema(node.op_type, model.opset_import[0].version)
        for place, value in enumerate(node.input):
            if value in unnamed:  # the last input that the schema names may stand for many
                last = len(schema.inputs) - 1
                label = schema.inputs[min(place, last)].name + (f"_{place}" if place > last else "")
                new.setdefault(value, f"{node.name}:{label}")
        node.ClearField("metadata_props")
        node.ClearField("doc_string")
    for port in (*graph.input, *graph.output):
        new[port.name] = port.name
        port.ClearField("metadata_props")
    for tensor in graph.initializer:
        tensor.name = new.get(tensor.name, tensor.name)  # one that no node takes keeps its name
        tensor.ClearField("metadata_props")
    for node in graph.node:
        node.input[:] = [new.get(name, name) for name in node.input]
        node.output[:] = [new[name] for name in node.output]
    graph.ClearField("metadata_props")
    del graph.value_info[:]


def _unscoped(name: str) -> str:
    return name.removeprefix("network").removeprefix(".")


def _name_ports(model: onnx.ModelProto, form: str, size: tuple[int, int] | None) -> None:
    """Name the dynamic dimensions of input and output, which the exporter calls 2*height_blocks."""
    for port in (*model.graph.input, *model.graph.output):
        axes = (1, 2) if form == "camera" else (2, 3)
        for axis, side in zip(axes, size or ("height", "width"), strict=True):
            dimension = port.type.tensor_type.shape.dim[axis]
            if isinstance(side, str):
                dimension.dim_param = side
            else:
                dimension.dim_value = side
