"""The house: who may import whom, and how large a module, a function and its signature may be."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
if not (ROOT / "train").is_dir():
    pytest.skip("the wheel's tests run without the workbench", allow_module_level=True)

FLOORS = (
    ("errors", "frames", "progress"),
    ("storage",),
    ("machine",),
    ("media",),
    ("models",),
    ("engine", "sources", "sinks"),
    ("backends",),
    ("pipeline",),
    ("report",),
    ("evaluation",),
    ("bench", "demo"),
    ("api",),
    ("commands",),
    ("cli", "__main__"),
)
"""The rooms of edge_restore, the lowest first. A room imports what lies below, and itself."""

FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
IN_ROOT = {"__init__", "__main__", "api", "cli", "errors", "frames", "progress"}

MAY_IMPORT = {
    "edge_restore": set(),
    "train": {"edge_restore"},
    "export": {"edge_restore", "train.networks", "train.weights"},
    "calibration": {"edge_restore", "train", "export"},
}
"""Between the packages; `export` and `calibration` build networks to read their weights."""

MAX_LINES = 500
MAX_FUNCTION_LINES = 80
MAX_PARAMETERS = 7

LARGE: dict[str, str] = {
    "edge_restore/api.py:run": "every option of the command has its keyword",
    "edge_restore/engine/plugin/driver.py:launch": "CUDA's cuLaunchKernel",
    "edge_restore/engine/plugin/plugin_v3.py:make_creator": "TensorRT's classes can be defined "
    "only where the library is at hand",
    "edge_restore/engine/plugin/quick_plugin.py:describe": "TensorRT reads the signature",
    "edge_restore/engine/plugin/quick_plugin.py:implement": "TensorRT reads the signature",
    "export/deform_conv/kernel.py:deform_conv": "the kernel, whose arguments are the launch's",
    "export/deform_conv/launch.py:deform_conv2d": "torchvision's signature, and the kernel's own",
    "export/deform_conv/launch.py:launch": "the kernel's tensors",
    "export/deform_conv/vectors.py:_layer": "one line a layer in a table",
    "train/networks/deform_conv.py:deform_conv2d": "torchvision's signature",
    "train/networks/deform_conv.py:__init__": "torch.nn.Conv2d's signature",
    "train/networks/deform_conv.py:_columns_grid_sample": "the layer's tensors and geometry",
    "train/networks/deform_conv.py:_columns_compiled": "the layer's tensors and geometry",
    "train/networks/deform_conv.py:_columns_triton": "the layer's tensors and geometry",
    "train/networks/deform_sample.py:forward": "torch.autograd.Function's signature",
    "train/networks/deform_sample_triton.py:forward": "torch.autograd.Function's signature",
    "train/networks/deform_sample_triton.py:sample": "a Triton kernel: pointers and strides",
    "train/networks/drcnet.py:__init__": "the paper's hyperparameters",
    "train/networks/fcn.py:__init__": "the paper's hyperparameters",
}
"""Functions over a limit, and why."""


def sources(*packages: str) -> list[Path]:
    return [file for package in packages for file in sorted((ROOT / package).rglob("*.py"))]


def name(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


def imports(file: Path) -> Iterator[tuple[int, str]]:
    """Each imported module with its line; of ``from p import m`` both p.m and p."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name(file)}:{node.lineno}: imports are absolute"
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def test_the_root_holds_what_everybody_knows() -> None:
    root = ROOT / "edge_restore"
    assert {file.stem for file in root.glob("*.py")} == IN_ROOT
    rooms = {folder.name for folder in root.iterdir() if (folder / "__init__.py").is_file()}
    assert rooms == FLOOR.keys() - IN_ROOT


def upward(file: Path, found: Iterator[tuple[int, str]]) -> list[str]:
    """The imports of a module in edge_restore that do not lead to a lower floor."""
    room = file.relative_to(ROOT / "edge_restore").parts[0].removesuffix(".py")
    wrong = []
    for line, module in found:
        package, _, rest = module.partition(".")
        target = rest.partition(".")[0]
        if package != "edge_restore" or target in (room, "__version__", ""):
            continue
        same = FLOOR[room] == FLOOR[target] and target in IN_ROOT
        if FLOOR[target] >= FLOOR[room] and not same:
            wrong.append(f"{name(file)}:{line}: {room} imports {target}")
    return wrong


def test_no_room_imports_one_above_or_beside_it() -> None:
    files = [
        f
        for f in sources("edge_restore")
        if f.parent.name != "edge_restore" or f.stem != "__init__"
    ]
    wrong = [line for file in files for line in upward(file, imports(file))]
    assert not wrong, "\n".join(wrong)


def test_an_import_that_runs_upward_is_noticed() -> None:
    file = ROOT / "edge_restore/media/images.py"
    assert upward(file, iter([(1, "edge_restore.report.page")]))
    assert upward(ROOT / "edge_restore/sources/file.py", iter([(1, "edge_restore.sinks.file")]))
    assert not upward(file, iter([(1, "edge_restore.storage.files"), (2, "numpy.random")]))


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_packages_import_only_what_they_may(package: str) -> None:
    wrong = []
    for file in sources(package):
        for line, module in imports(file):
            other = module.partition(".")[0]
            if other in MAY_IMPORT and other != package:
                allowed = MAY_IMPORT[package]
                if not any(module == a or module.startswith(f"{a}.") for a in allowed):
                    wrong.append(f"{name(file)}:{line}: {module}")
    assert not wrong, "\n".join(wrong)


def test_modules_can_be_read_at_a_sitting() -> None:
    lengths = {name(file): len(file.read_text().splitlines()) for file in sources(*MAY_IMPORT)}
    assert {file: n for file, n in lengths.items() if n > MAX_LINES} == {}


def functions() -> Iterator[tuple[str, int, int]]:
    """Each function with its lines, apart from the docstring, and its parameters."""
    for file in sources(*MAY_IMPORT):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                text = ast.get_docstring(node, clean=False)
                documented = text.count("\n") + 1 if text else 0
                a = node.args
                names = [x.arg for x in (*a.posonlyargs, *a.args, *a.kwonlyargs)]
                bound = names[:1] in (["self"], ["cls"], ["ctx"])
                lines = (node.end_lineno or node.lineno) - node.lineno + 1 - documented
                yield f"{name(file)}:{node.name}", lines, len(names) - bound


def test_functions_fit_into_the_head() -> None:
    large = {
        function: (lines, parameters)
        for function, lines, parameters in functions()
        if lines > MAX_FUNCTION_LINES or parameters > MAX_PARAMETERS
    }
    assert {k: v for k, v in large.items() if k not in LARGE} == {}
    assert LARGE.keys() - large.keys() == set(), "no longer large: take them off the list"
