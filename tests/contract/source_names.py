"""Which names of TensorRT our source uses, found by walking it.

Types are followed only as far as a table can tell: a variable of a certain name is an object of a
certain class (`VARIABLES`), and a few methods give objects of others (`RESULTS`). A variable that
is not in the table is not looked at, so `tests/contract/test_names.py` also pins some of what must
be found.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import edge_restore

PACKAGE = Path(edge_restore.__file__).parent

Path_ = tuple[str, ...]
"""() is the module `tensorrt`, ("ICudaEngine", "name") a member of a class in it, and
("plugin", "register") what its module `tensorrt.plugin` has."""

VARIABLES: dict[str, dict[str, Path_]] = {
    # in every file
    "*": {
        "trt": (),
        "trtp": ("plugin",),
        "builder": ("Builder",),
        "config": ("IBuilderConfig",),
        "context": ("IExecutionContext",),
        "definition": ("INetworkDefinition",),
        "expr_builder": ("IExprBuilder",),
        "inspector": ("EngineInspector",),
        "layer": ("ILayer",),
        "parser": ("OnnxParser",),
        "profile": ("IOptimizationProfile",),
        "registry": ("IPluginRegistry",),
        "runtime": ("Runtime",),
        "runtime_cache": ("IRuntimeCache",),
        "runtime_config": ("IRuntimeConfig",),
        "timings": ("ITimingCache",),
    },
    "builder.py": {"loaded": ("ICudaEngine",), "inspector": ("EngineInspector",)},
    "network.py": {"error": ("ParserError",)},
    "quick_plugin.py": {
        "image": ("plugin", "TensorDesc"),
        "ow": ("plugin", "TensorDesc"),
        "bias": ("plugin", "TensorDesc"),
        "desc": ("plugin", "TensorDesc"),
        "params": ("plugin", "KernelLaunchParams"),
    },
    "plugin_v3.py": {
        "desc": ("PluginTensorDesc",),
        "tensor": ("DynamicPluginTensorDesc",),
        "field": ("PluginField",),
    },
    "driver.py": {"context": ("-",)},  # a CUDA context
    "layer_precision.py": {"layer": ("-",)},  # of our own class
    "tensorrt.py": {"builder": ("-",)},  # our module of that name
    "tensorrt_session.py": {"engine": ("ICudaEngine",)},
    "gpu_peaks.py": {"loaded": ("ICudaEngine",)},
    "product.py": {"product": ("ITensor",)},
    "registry.py": {"module": ("plugin",)},
}
"""By file, what a variable, parameter or attribute of that name (or with a leading underscore)
holds; ("-",) for something that is not TensorRT's."""

RESULTS: dict[Path_, Path_] = {
    ("INetworkDefinition", "get_input"): ("ITensor",),
    ("ILayer", "get_input"): ("ITensor",),
    ("ILayer", "get_output"): ("ITensor",),
    ("get_plugin_registry",): ("IPluginRegistry",),
    ("Runtime",): ("Runtime",),
}
"""What a call gives."""

PROPERTIES: dict[Path_, Path_] = {
    ("DynamicPluginTensorDesc", "desc"): ("PluginTensorDesc",),
    ("ILayer", "type"): ("LayerType",),
}
"""What a property of an object holds; properties that are not here are not followed."""

COVERED: dict[Path_, Path_] = {
    # Flavour.chooses_targets asks for the second of them.
    ("IBuilderConfig", "num_compute_capabilities"): ("IBuilderConfig", "set_compute_capability"),
    ("IRuntimeConfig", "create_runtime_cache"): ("IRuntimeConfig", "set_runtime_cache"),
}
"""Names that came together with another one, whose feature test stands for both."""

INSTANCE_ATTRIBUTES = {
    # Set by the constructor in Python, so the class itself does not show them.
    ("plugin", "KernelLaunchParams"): {"grid_x", "grid_y", "grid_z", "block_x", "shared_mem"},
}


@dataclass(frozen=True)
class Call:
    """How something is called: positional arguments and keywords; None where `*` hides them."""

    positional: int | None
    keywords: tuple[str, ...]


@dataclass(frozen=True)
class Use:
    """One name in our source.

    Attributes:
        path: what it is of TensorRT.
        where: file and line.
        tested: it is the name in a `hasattr` or a `getattr` with a default: it may be missing.
        call: how it is called, where it is.
    """

    path: Path_
    where: str
    tested: bool = False
    call: Call | None = None


def sources() -> list[Path]:
    """The files that speak with TensorRT."""
    patterns = ("engine/**/*.py", "backends/tensorrt*.py", "bench/gpu*.py")
    return sorted(file for pattern in patterns for file in PACKAGE.glob(pattern))


def uses(path: Path, text: str | None = None) -> list[Use]:
    """What a file uses; `text` instead of its own content."""
    tree = ast.parse(path.read_text(encoding="utf-8") if text is None else text)
    return list(_Walker(path.name).walk(tree))


class _Walker:
    def __init__(self, file: str) -> None:
        self.file = file
        self.variables = {**VARIABLES["*"], **VARIABLES.get(file, {})}

    def walk(self, tree: ast.AST) -> Iterator[Use]:
        calls = {id(node.func): node for node in ast.walk(tree) if isinstance(node, ast.Call)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and (use := self._feature_test(node)) is not None:
                yield use
            if not isinstance(node, ast.Attribute) or (path := self._path(node)) is None:
                continue
            if self._names_a_variable(node) or path[:1] == ("-",):
                continue
            call = _call(calls[id(node)]) if id(node) in calls else None
            if call is not None and node.attr == "__init__" and call.positional:
                call = Call(call.positional - 1, call.keywords)  # Base.__init__(self)
            yield Use(path, f"{self.file}:{node.lineno}", call=call)

    def _feature_test(self, node: ast.Call) -> Use | None:
        if not isinstance(node.func, ast.Name) or node.func.id not in ("hasattr", "getattr"):
            return None
        if node.func.id == "getattr" and len(node.args) < 3:
            return None
        owner, name = self._path(node.args[0]), node.args[1]
        if owner is None or owner[:1] == ("-",) or not isinstance(name, ast.Constant):
            return None
        return Use((*owner, str(name.value)), f"{self.file}:{node.lineno}", tested=True)

    def _names_a_variable(self, node: ast.Attribute) -> bool:
        """Whether this is `self._engine` or `flavour.trt`: a variable, no member of TensorRT's."""
        return self._path(node.value) is None

    def _path(self, node: ast.expr) -> Path_ | None:
        """What an expression is of TensorRT, if anything."""
        if isinstance(node, ast.Name):
            return self.variables.get(node.id.lstrip("_"))
        if isinstance(node, ast.Attribute):
            owner = self._path(node.value)
            if owner is not None and len(owner) > 1 and owner[-1][0].islower():
                owner = PROPERTIES.get(owner, ("-",))
            if owner is not None:
                return (*owner, node.attr)
            ours = isinstance(node.value, ast.Name) and node.value.id == "self"
            if ours or node.attr == "trt":
                return self.variables.get(node.attr.lstrip("_"))
        if isinstance(node, ast.Call):
            called = self._path(node.func)
            return RESULTS.get(called) if called is not None else None
        return None


def _call(node: ast.Call) -> Call:
    starred = any(isinstance(argument, ast.Starred) for argument in node.args)
    keywords = tuple(keyword.arg for keyword in node.keywords if keyword.arg is not None)
    hidden = starred or len(keywords) < len(node.keywords)
    return Call(None if hidden else len(node.args), keywords)
