"""Route (b): the deformable convolution as an IPluginV3 in Python, for TensorRT 10.0 to 10.8.

TensorRT calls the plugin back in Python for each frame, or once where it is captured in a CUDA
graph, and the plugin launches the kernel on TensorRT's stream. An engine with it runs in Python
alone, after `plugin.register`. From 10.9 on `quick_plugin` does without all that.

Not yet run on a GPU; `pytest -m gpu tests/gpu` checks it. tests/contract makes the objects with the
real bindings of 10.3 and calls every method.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edge_restore.engine.plugin import driver
from edge_restore.engine.plugin.deform_conv import (
    ATTRIBUTES,
    INPUTS,
    NAMESPACE,
    OPERATOR,
    VERSION,
    Attributes,
    KernelChoice,
    Launch,
    plan_launch,
)
from edge_restore.engine.plugin.quick_plugin import precision_of


def make_creator(trt: Any, choose: KernelChoice) -> Any:
    """A plugin creator for `trt.get_plugin_registry()`. Keep it alive: the registry does not.

    The classes are made here because their bases come from the library.

    Args:
        trt: the module `tensorrt`.
        choose: gives the kernel for the GPU that is built for or run on.
    """

    class DeformConvPlugin(
        trt.IPluginV3,  # type: ignore[misc]
        trt.IPluginV3OneCore,  # type: ignore[misc]
        trt.IPluginV3OneBuild,  # type: ignore[misc]
        trt.IPluginV3OneRuntime,  # type: ignore[misc]
    ):
        """One node. Tensors: image, ow, weight, bias, slope; then the output."""

        def __init__(self, attributes: Attributes) -> None:
            trt.IPluginV3.__init__(self)
            trt.IPluginV3OneCore.__init__(self)
            trt.IPluginV3OneBuild.__init__(self)
            trt.IPluginV3OneRuntime.__init__(self)
            self.plugin_name = OPERATOR
            self.plugin_namespace = NAMESPACE
            self.plugin_version = VERSION
            self.num_outputs = 1
            self.attributes = attributes
            self.launch: Launch | None = None
            self.function = 0
            # Kept here: a field is only a pointer.
            self.field_arrays = {
                name: np.array([getattr(attributes, name)], np.int32) for name in ATTRIBUTES
            }

        def get_capability_interface(self, type: Any) -> Any:
            return self

        def clone(self) -> Any:
            copy = DeformConvPlugin(self.attributes)
            copy.launch, copy.function = self.launch, self.function
            return copy

        # Building

        def get_output_data_types(self, input_types: Any) -> Any:
            return [input_types[0]]

        def get_output_shapes(self, inputs: Any, shape_inputs: Any, expr_builder: Any) -> Any:
            image, ow, bias = inputs[0], inputs[1], inputs[3]
            output = trt.DimsExprs(4)
            output[0], output[1], output[2], output[3] = image[0], bias[0], ow[2], ow[3]
            return [output]

        def supports_format_combination(self, pos: int, in_out: Any, num_inputs: int) -> bool:
            return _takes(trt, pos, [tensor.desc for tensor in in_out])

        def configure_plugin(self, inputs: Any, outputs: Any) -> None:
            pass  # everything follows from what on_shape_change is told

        # Running

        def set_tactic(self, tactic: int) -> None:
            pass

        def on_shape_change(self, inputs: Any, outputs: Any) -> None:
            shapes = [[int(side) for side in desc.dims] for desc in inputs[:4]]
            precision = precision_of(trt, inputs[0].type)
            self.launch = plan_launch(choose, self.attributes, precision, shapes)
            # Loaded now: enqueue may be captured in a CUDA graph, where nothing can be loaded.
            self.function = driver.load(self.launch.kernel.ptx, self.launch.kernel.entry)

        def enqueue(
            self,
            input_desc: Any,
            output_desc: Any,
            inputs: Any,
            outputs: Any,
            workspace: int,
            stream: int,
        ) -> None:
            if self.launch is None:
                self.on_shape_change(input_desc, output_desc)
            launch = self.launch
            assert launch is not None
            driver.launch(
                self.function,
                launch.grid,
                launch.kernel.threads,
                launch.kernel.shared_bytes,
                stream,
                inputs,
                launch.scalars,
                outputs,
            )

        def attach_to_context(self, resource_context: Any) -> Any:
            return self.clone()

        def get_fields_to_serialize(self) -> Any:
            kind = trt.PluginFieldType.INT32
            return trt.PluginFieldCollection(
                [trt.PluginField(name, array, kind) for name, array in self.field_arrays.items()]
            )

    class DeformConvCreator(trt.IPluginCreatorV3One):  # type: ignore[misc]
        """Makes plugins from a node's attributes or from what an engine holds."""

        def __init__(self) -> None:
            trt.IPluginCreatorV3One.__init__(self)
            self.name = OPERATOR
            self.plugin_namespace = NAMESPACE
            self.plugin_version = VERSION
            self.empty = np.array([], np.int32)  # a field is only a pointer to it
            kind = trt.PluginFieldType.INT32
            self.field_names = trt.PluginFieldCollection(
                [trt.PluginField(name, self.empty, kind) for name in ATTRIBUTES]
            )

        def create_plugin(self, name: str, field_collection: Any, phase: Any) -> Any:
            values = {field.name: int(np.ravel(field.data)[0]) for field in field_collection}
            return DeformConvPlugin(Attributes.of(values))

    return DeformConvCreator()


def _takes(trt: Any, place: int, tensors: Any) -> bool:
    """Whether tensor `place` may have its type and format, given those before it.

    Args:
        tensors: PluginTensorDesc of the inputs and then of the output.
    """
    names = (*INPUTS, "out")
    kind, layout = tensors[place].type, tensors[place].format
    if names[place] in ("bias", "slope"):
        return bool(kind == trt.DataType.FLOAT and layout == trt.TensorFormat.LINEAR)
    first = tensors[0].type
    if kind != first or first not in (trt.DataType.HALF, trt.DataType.FLOAT):
        return False
    pixels = trt.TensorFormat.HWC8 if first == trt.DataType.HALF else trt.TensorFormat.HWC
    return bool(layout == (trt.TensorFormat.LINEAR if names[place] == "weight" else pixels))
