"""In a child process: takes the quick plugin through a build, with TensorRT's own Python code.

`tensorrt.plugin` is Python, so everything that it asks of a plugin is asked here for real. What it
calls in C++ are four small classes and the registry, which live in the library that is not here;
they have stand-ins.
"""

from __future__ import annotations

import importlib
import json
import sys
from types import SimpleNamespace
from typing import Any

from edge_restore.engine.plugin import registry as plugin
from edge_restore.engine.plugin.deform_conv import NAMESPACE, OPERATOR
from edge_restore.errors import UserError
from tests.contract.bindings import answer
from tests.contract.plugin_v3_child import NODE, SHAPES, fields
from tests.contract.registry import Registry


class Number:
    """Stands for IDimensionExpr: a size that is known, or None for one that is not."""

    def __init__(self, value: int | None) -> None:
        self.value = value

    def is_constant(self) -> bool:
        return self.value is not None

    def get_constant_value(self) -> int:
        assert self.value is not None
        return self.value


class Numbers(list):  # type: ignore[type-arg]
    """Stands for DimsExprs."""

    def __init__(self, sides: Any) -> None:
        super().__init__([None] * sides if isinstance(sides, int) else map(Number, sides))


class Argument:
    """Stands for ISymExpr."""

    type = dtype = expr = None


class Setter(dict):  # type: ignore[type-arg]
    """Stands for ISymExprs, into which the plugin's arguments are put."""

    nbSymExprs = 0


def main() -> None:
    case = json.load(sys.stdin)
    trt = importlib.import_module("tensorrt_bindings")
    sys.modules["tensorrt"] = trt
    registry = Registry()
    replaced = {"IDimensionExpr": Number, "DimsExprs": Numbers, "ISymExpr": Argument}
    replaced["get_plugin_registry"] = lambda: registry
    for name, stand_in in replaced.items():
        assert hasattr(trt, name)
        setattr(trt, name, stand_in)
    before = [list(plugin.routes(trt)), plugin.registered(trt)]
    routes = [plugin.register(trt, compute_capability=tuple(case["gpu"])) for _ in range(2)]
    try:
        built = build(trt, registry, case)
    except (UserError, ValueError) as error:
        built = {"error": f"{error}"}
    answer({
        "before": before, "routes": routes, "after": plugin.registered(trt),
        "creators": list(registry.creators), **built,
    })  # fmt: skip


def build(trt: Any, registry: Registry, case: Any) -> dict[str, Any]:
    creator = registry.get_creator(OPERATOR, "1", NAMESPACE)
    request = trt.QuickPluginCreationRequest.UNKNOWN
    made = creator.create_plugin(
        OPERATOR, NAMESPACE, fields(trt, {**NODE, **case.get("node", {})}),
        trt.TensorRTPhase.BUILD, request,
    )  # fmt: skip
    shapes = {**SHAPES, **case.get("shapes", {})}
    inputs = [Numbers(shape) for shape in list(shapes.values())[:5]]
    pixel = getattr(trt.DataType, case["type"])
    kinds = [pixel] * 3 + [trt.DataType.FLOAT] * 2
    builder = SimpleNamespace(constant=Number)
    types = made.get_output_data_types(kinds, [len(shape) for shape in inputs])
    output = made.get_output_shapes(inputs, [], builder)

    dynamics = []
    for shape, kind in zip(shapes.values(), [*kinds, pixel], strict=True):
        dynamic = trt.DynamicPluginTensorDesc()
        dynamic.desc.dims, dynamic.desc.type = trt.Dims(list(shape)), kind
        dynamics.append(dynamic)
    combinations = made.get_supported_format_combinations(dynamics, 5)
    for dynamic, chosen in zip(dynamics, combinations, strict=False):
        dynamic.desc.format = chosen.format
    made.configure_plugin(dynamics[:5], dynamics[5:])
    tactics = made.get_valid_tactics()
    made.set_tactic(0)
    launch, setter = SimpleNamespace(), Setter()
    made.get_launch_params(inputs, dynamics, 5, launch, setter, builder)
    descs = [dynamic.desc for dynamic in dynamics]
    name, ptx = made.get_kernel(descs[:5], descs[5:])
    return {
        "creator fields": [f.name for f in creator.field_names],
        "output types": [each.name for each in types],
        "output": [[side.value for side in shape] for shape in output],
        "formats": [f"{c.type.name} {c.format.name}" for c in combinations],
        "tactics": tactics,
        "launch": {key: value.expr.value for key, value in vars(launch).items()},
        "scalars": [setter[i].expr.value for i in range(setter.nbSymExprs)],
        "scalar types": sorted({setter[i].dtype.name for i in range(setter.nbSymExprs)}),
        "kernel": [name.decode() if isinstance(name, bytes) else name, ptx.decode()],
    }


if __name__ == "__main__":
    main()
