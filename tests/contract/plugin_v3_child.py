"""In a child process: makes the IPluginV3 with the real bindings and calls all of it."""

from __future__ import annotations

import importlib
import itertools
import sys
from typing import Any

import numpy as np

from edge_restore.engine.plugin import registry as plugin
from edge_restore.engine.plugin.deform_conv import ATTRIBUTES
from edge_restore.errors import BackendError
from tests.contract.bindings import answer
from tests.contract.registry import Registry
from tests.contract.test_names import pybind_signatures

ALIVE: list[Any] = []
NODE = dict(zip(ATTRIBUTES, (5, 5, 1, 2, 1, 1), strict=True))
SHAPES = {
    "image": (1, 48, 36, 64), "ow": (1, 75, 36, 64), "weight": (25, 48, 48),
    "bias": (48,), "slope": (48,), "out": (1, 48, 36, 64),
}  # fmt: skip


def main() -> None:
    trt = importlib.import_module("tensorrt_bindings")
    sys.modules["tensorrt"] = trt
    registry = Registry()
    trt.get_plugin_registry = lambda: registry
    routes = [plugin.register(trt, route="python", compute_capability=(8, 6)) for _ in range(2)]
    other = []
    for route in plugin.ROUTES:
        try:
            other.append(plugin.register(trt, route=route))
        except BackendError as error:
            other.append(error.found)
    plugin.register(trt, compute_capability=(8, 6))
    ((key, creator),) = registry.creators.items()
    parsed = fields(trt, {**NODE})
    node = creator.create_plugin("node", parsed, trt.TensorRTPhase.BUILD)
    half, single = trt.DataType.HALF, trt.DataType.FLOAT
    inputs = [trt.DimsExprs(len(shape)) for shape in list(SHAPES.values())[:5]]
    shapes = node.get_output_shapes(inputs, [], trt.IExprBuilder())

    descs = [desc(trt, shape, half if i not in (3, 4) else single) for i, shape in enumerate(
        SHAPES.values())]  # fmt: skip
    node.configure_plugin([], [])
    node.set_tactic(0)
    node.on_shape_change(descs[:5], descs[5:])
    attached = node.attach_to_context(None)
    addresses = [0x7000 + 0x100 * i for i in range(5)]
    attached.enqueue(descs[:5], descs[5:], addresses, [0x9000], 0, 0xABC0)

    clone = node.clone()  # never let go: in 10.3 the library destroys plugins, and is not here

    kept = node.get_fields_to_serialize()
    again = creator.create_plugin("node", kept, trt.TensorRTPhase.RUNTIME)
    again.enqueue(descs[:5], descs[5:], addresses, [0x9000], 0, 0xABC0)  # no shape change before
    answer({
        "routes": routes, "other": other, "key": key, "registered": plugin.registered(trt),
        "creator": [creator.name, creator.plugin_namespace, creator.plugin_version],
        "fields": [[f.name, f.type.name] for f in creator.field_names],
        "plugin": [node.plugin_name, node.plugin_namespace, node.plugin_version],
        "outputs": node.num_outputs,
        "output types": [t.name for t in node.get_output_data_types([half] * 5)],
        "output ranks": [len(shape) for shape in shapes],
        "capabilities": [
            node.get_capability_interface(kind) is node
            for kind in trt.PluginCapabilityType.__members__.values()
        ],
        "formats": list(accepted(trt, node)),
        "kept": {f.name: [f.type.name, int(f.data[0]), len(f.data)] for f in kept},
        "again": vars(again.attributes),
        "attached is another": attached is not node and attached.attributes == node.attributes,
        "clone": type(clone) is type(node),
        "signatures": list(signature_faults(trt, [type(node), type(creator)])),
    })  # fmt: skip


def fields(trt: Any, values: dict[str, int]) -> Any:
    """As TensorRT's ONNX parser gives integer attributes: int32 arrays of one element."""
    kind = trt.PluginFieldType.INT32
    arrays = {name: np.array([value], np.int32) for name, value in values.items()}
    ALIVE.append(arrays)  # a field is only a pointer
    return trt.PluginFieldCollection(
        [trt.PluginField(name, array, kind) for name, array in arrays.items()]
    )


def desc(trt: Any, shape: Any, kind: Any, layout: Any = None) -> Any:
    made = trt.PluginTensorDesc()
    made.dims, made.type = trt.Dims(list(shape)), kind
    made.format = trt.TensorFormat.LINEAR if layout is None else layout
    return made


def accepted(trt: Any, plugin: Any) -> Any:
    """Every combination of types and formats that the plugin takes, asked as TensorRT asks."""
    kinds = [trt.DataType.HALF, trt.DataType.FLOAT, trt.DataType.INT8]
    layouts = [trt.TensorFormat.LINEAR, trt.TensorFormat.HWC8, trt.TensorFormat.HWC]
    options = list(itertools.product(kinds, layouts))

    def grow(chosen: list[Any]) -> Any:
        if len(chosen) == 6:
            yield [f"{each.desc.type.name} {each.desc.format.name}" for each in chosen]
            return
        for kind, layout in options:
            dynamic = trt.DynamicPluginTensorDesc()
            dynamic.desc.type, dynamic.desc.format = kind, layout
            asked = [*chosen, dynamic]
            if plugin.supports_format_combination(len(chosen), asked, 5):
                yield from grow(asked)

    return grow([])


def signature_faults(trt: Any, classes: list[type]) -> Any:
    """Our methods that TensorRT does not know, or would call with other arguments."""
    for ours in classes:
        bases = [base for base in ours.__mro__[1:] if base.__module__.startswith(trt.__name__)]
        for name, method in vars(ours).items():
            if name.startswith("__") or not callable(method):
                continue
            known = next((getattr(base, name) for base in bases if hasattr(base, name)), None)
            if known is None:
                yield f"{ours.__name__}.{name} is no method of its bases"
                continue
            given = method.__code__.co_argcount
            wanted = [len(parameters) for parameters in pybind_signatures(known.__doc__ or "")]
            if wanted and given not in wanted:
                yield f"{ours.__name__}.{name} takes {given} arguments, TensorRT gives {wanted}"


if __name__ == "__main__":
    main()
