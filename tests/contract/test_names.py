"""Every name of TensorRT in our source exists in every version that is served.

A name that is only used behind a feature test may be missing in a version, but not in all.
"""

from __future__ import annotations

import importlib.util
import os
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.contract import bindings, source_names
from tests.contract.bindings import Bindings
from tests.contract.source_names import Call, Use

CHILD = "tests.contract.names_child"


def all_uses() -> list[Use]:
    return [use for path in source_names.sources() for use in source_names.uses(path)]


def optional(uses: list[Use]) -> set[tuple[str, ...]]:
    """Names that a feature test asks for."""
    tested = {use.path for use in uses if use.tested}
    return tested | {path for path, other in source_names.COVERED.items() if other in tested}


def may_be_missing(path: tuple[str, ...], first: int, tested: set[tuple[str, ...]]) -> bool:
    """Whether `path` may be missing from its name number `first` on.

    A test for a class allows the class to be missing, not a member of a class that is there.
    """
    missing = path[: first + 1]
    behind = missing in BEHIND_A_TEST or missing in tested
    given = source_names.INSTANCE_ATTRIBUTES.get(path[:-1], set())
    return behind or (missing == path and path[-1] in given)


BEHIND_A_TEST = {("plugin",), ("IRuntimeConfig",), ("IRuntimeCache",)}
"""A module whose import is caught (engine/plugin/registry.py), and classes of objects that only a
tested method gives."""


@cache
def known(installed: Bindings, stand_ins: Path, paths: frozenset[tuple[str, ...]]) -> Any:
    return installed.run(stand_ins, CHILD, sorted(map(list, paths)))


def problems(uses: list[Use], table: Any, tested: set[tuple[str, ...]]) -> list[str]:
    """What is wrong with `uses`, where `table` is what the child said of their paths."""
    found = []
    for use in uses:
        name = ".".join(use.path)
        entry = table[name]
        if not entry["exists"]:
            if not may_be_missing(use.path, entry["missing"], tested):
                found.append(f"{use.where}: there is no {name}")
        elif use.call is not None and not fits(use.call, entry):
            found.append(f"{use.where}: {name} is not called like that: {entry['doc'][:400]}")
    return found


def fits(call: Call, entry: Any) -> bool:
    """Whether one of the function's signatures takes the call."""
    signatures = [entry["python"]] if entry["python"] else pybind_signatures(entry["doc"])
    return not signatures or any(_takes(parameters, call) for parameters in signatures)


def _takes(parameters: list[Any], call: Call) -> bool:
    named = [p for p in parameters if p[0] != "self"]
    if not set(call.keywords) <= {name for name, _ in named}:
        return False
    if call.positional is None:
        return True
    rest = named[call.positional :]
    if call.positional > len(named):
        return False
    return all(default or name in call.keywords for name, default in rest)


def pybind_signatures(doc: str) -> list[list[Any]]:
    """Parameters, as (name, has a default), of each overload in a pybind11 docstring."""
    found = []
    for line in doc.splitlines():
        match = re.match(r"(?:\d+\. )?\w+\((.*)\) -> ", line)
        if match is None or match[1].startswith("*args"):
            continue
        parts = re.split(r", (?=\w+: )", match[1]) if match[1] else []
        found.append([[part.partition(":")[0], " = " in part] for part in parts])
    return found


def test_every_name_exists(installed: Bindings, stand_ins: Path) -> None:
    uses = all_uses()
    table = known(installed, stand_ins, frozenset(use.path for use in uses))
    assert problems(uses, table, optional(uses)) == []


def test_what_is_behind_a_feature_test_exists_somewhere(stand_ins: Path) -> None:
    versions = bindings.find()
    if not {10, 11} <= {each.major for each in versions}:
        pytest.skip("bindings of TensorRT 10 and of 11 are needed")
    uses = all_uses()
    paths = frozenset(use.path for use in uses)
    tables = [known(each, stand_ins, paths) for each in versions]
    rtx = importlib.util.find_spec("tensorrt_rtx") is not None
    if rtx:
        environment = {**os.environ, "TENSORRT_MODULE": "tensorrt_rtx"}
        tables.append(bindings.run_child(CHILD, sorted(map(list, paths)), environment))
    given = source_names.INSTANCE_ATTRIBUTES
    nowhere = [
        f"{use.where}: {'.'.join(use.path)}"
        for use in uses
        if not any(table[".".join(use.path)]["exists"] for table in tables)
        and use.path[-1] not in given.get(use.path[:-1], set())
    ]
    if nowhere and not rtx:
        pytest.skip(f"TensorRT-RTX, not installed here, must have: {'; '.join(nowhere)}")
    assert nowhere == []


def test_the_real_rtx_module_has_what_its_path_uses() -> None:
    if importlib.util.find_spec("tensorrt_rtx") is None:
        pytest.skip("TensorRT-RTX is not installed")
    plugins = {"registry.py", "plugin_v3.py", "quick_plugin.py", "timing_cache.py"}
    uses = [u for u in all_uses() if u.where.partition(":")[0] not in plugins]
    environment = {**os.environ, "TENSORRT_MODULE": "tensorrt_rtx"}
    table = bindings.run_child(CHILD, sorted({use.path for use in uses}), environment)
    assert problems(uses, table, optional(uses)) == []


def test_the_walk_finds_what_is_there() -> None:
    """If the walker went blind, everything would pass."""
    paths = {use.path for use in all_uses()}
    assert len(paths) > 60
    assert paths >= {
        ("NetworkDefinitionCreationFlag", "STRONGLY_TYPED"),
        ("Builder", "build_serialized_network"),
        ("ICudaEngine", "create_execution_context"),
        ("IExecutionContext", "execute_async_v3"),
        ("IExecutionContext", "set_tensor_address"),
        ("IPluginRegistry", "register_creator"),
        ("IPluginV3OneBuild",),
        ("ITensor", "dtype"),
        ("plugin", "aot_impl"),
        ("plugin", "KernelLaunchParams"),
    }


def test_every_variable_of_the_table_is_used() -> None:
    text = {path.name: path.read_text(encoding="utf-8") for path in source_names.sources()}
    for file, variables in source_names.VARIABLES.items():
        where = "\n".join(text.values()) if file == "*" else text[file]
        for variable in variables:
            assert re.search(rf"\b_?{variable}\b", where), f"{variable} is not in {file}"


@pytest.mark.parametrize(
    ("code", "complaint"),
    [
        ("trt.NoSuchClass()", "there is no NoSuchClass"),
        ("trt.DataType.FLOAT17", "there is no DataType.FLOAT17"),
        ("self._context.execute_async_v4(0)", "there is no IExecutionContext.execute_async_v4"),
        ("context.execute_async_v3()", "not called like that"),
        ("context.execute_async_v3(stream=1)", "not called like that"),
        ("context.set_tensor_address('a', 1, 2)", "not called like that"),
        ("flavour.trt.Logger.Severity.LOUD", "there is no Logger.Severity.LOUD"),
        ("definition.get_input(0).colour", "there is no ITensor.colour"),
        ("trt.Runtime(logger).fly()", "there is no Runtime.fly"),
        ("trt.PluginField('a', b, kind=c)", "not called like that"),
    ],
)
def test_a_name_that_does_not_exist_is_found(
    installed: Bindings, stand_ins: Path, code: str, complaint: str
) -> None:
    uses = source_names.uses(Path("made_up.py"), code)
    table = known(installed, stand_ins, frozenset(use.path for use in uses))
    assert any(complaint in problem for problem in problems(uses, table, set()))


def test_a_test_for_a_class_excuses_no_member(installed: Bindings, stand_ins: Path) -> None:
    code = (
        "if hasattr(trt, 'Builder'): builder.wish()\nif hasattr(trt, 'Magic'): trt.Magic().wish()"
    )
    uses = source_names.uses(Path("made_up.py"), code)
    table = known(installed, stand_ins, frozenset(use.path for use in uses))
    assert problems(uses, table, optional(uses)) == ["made_up.py:1: there is no Builder.wish"]


@pytest.mark.parametrize(
    "code",
    [
        "context.execute_async_v3(stream_handle=1)",
        "context.set_tensor_address('a', 1)",
        "trt.Logger(trt.Logger.WARNING)",
        "trt.DataType.HALF",
        "trt.PluginField('a', b, trt.PluginFieldType.INT32)",
    ],
)
def test_a_name_that_exists_is_not_complained_about(
    installed: Bindings, stand_ins: Path, code: str
) -> None:
    uses = source_names.uses(Path("made_up.py"), code)
    table = known(installed, stand_ins, frozenset(use.path for use in uses))
    assert uses and problems(uses, table, set()) == []
