"""TensorRT's real Python bindings, imported on a machine that has no TensorRT.

The bindings are wheels of their own (`tensorrt-cu12-bindings`, `tensorrt-cu13-bindings`) that want
three shared libraries. `Bindings.run` gives them stand-ins, compiled here, that define the nine C
functions which the bindings name and do nothing. So every class, enum member and signature can be
looked at; anything that would really call the library gets a null pointer.

All wheels are imported under one name, so each gets its own child process. They are found in the
folders of EDGE_RESTORE_TRT_BINDINGS (separated as in PATH), each filled by, say ::

    pip install --no-deps --target bindings/10.3.0 tensorrt-cu12-bindings==10.3.0
    pip install --no-deps --target bindings/11.4.0 tensorrt-cu13-bindings==11.4.0.106
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
VARIABLE = "EDGE_RESTORE_TRT_BINDINGS"
PACKAGE = "tensorrt_bindings"

LIBRARIES = ("nvinfer", "nvonnxparser", "nvinfer_plugin")
STAND_IN = """
#define NOTHING(name) void *name(void) { return 0; }
NOTHING(createInferBuilder_INTERNAL)
NOTHING(createInferRefitter_INTERNAL)
NOTHING(createInferRuntime_INTERNAL)
NOTHING(createNvOnnxParser_INTERNAL)
NOTHING(createNvOnnxParserRefitter_INTERNAL)
NOTHING(getBuilderPluginRegistry)
NOTHING(getPluginRegistry)
int getNvOnnxParserVersion(void) { return 0; }
int initLibNvInferPlugins(void *logger, const char *scope) { return 1; }
"""


@dataclass(frozen=True)
class Bindings:
    """One installed version.

    Attributes:
        version: e.g. "10.3.0".
        folder: what must be on the path to import `PACKAGE`.
    """

    version: str
    folder: Path

    @property
    def major(self) -> int:
        return int(self.version.partition(".")[0])

    def run(self, stand_ins: Path, module: str, given: Any = None) -> Any:
        """Run ``python -m module`` with these bindings; `given` and the answer travel as JSON."""
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(self.folder), str(ROOT)]),
            "LD_LIBRARY_PATH": str(compile_stand_ins(stand_ins, self.major)),
        }
        return run_child(module, given, environment)


def run_child(module: str, given: Any, environment: dict[str, str]) -> Any:
    result = subprocess.run(
        [sys.executable, "-m", module],
        input=json.dumps(given),
        capture_output=True,
        text=True,
        env=environment,
        cwd=ROOT,
        check=False,
        timeout=300,
    )
    assert result.returncode == 0, f"{module}: exit {result.returncode}\n{result.stderr[-4000:]}"
    return json.loads(result.stdout.splitlines()[-1])


def answer(document: Any) -> None:
    """In the child: hand over the answer and end, without destructors of objects that the
    stand-ins never really made."""
    print(f"\n{json.dumps(document)}", flush=True)
    os._exit(0)


def compile_stand_ins(folder: Path, major: int) -> Path:
    """The folder with the shared libraries of a major version."""
    place = folder / f"trt{major}"
    if place.is_dir():
        return place
    place.mkdir(parents=True)
    source = folder / "stand_in.c"
    source.write_text(STAND_IN, encoding="ascii")
    for library in LIBRARIES:
        name = f"lib{library}.so.{major}"
        command = ["gcc", "-shared", "-fPIC", f"-Wl,-soname,{name}", "-o", place / name, source]
        subprocess.run(command, check=True, capture_output=True)
    return place


def find() -> list[Bindings]:
    """The versions that are here and fit this interpreter, oldest first."""
    folders = [Path(entry) for entry in os.environ.get(VARIABLE, "").split(os.pathsep) if entry]
    if (spec := importlib.util.find_spec(PACKAGE)) is not None and spec.origin:
        folders.append(Path(spec.origin).parents[1])
    found = [Bindings(_version(folder), folder.resolve()) for folder in folders if _fits(folder)]
    return sorted(found, key=lambda b: [int(n) for n in re.findall(r"\d+", b.version)])


def _version(folder: Path) -> str:
    text = (folder / PACKAGE / "__init__.py").read_text(encoding="utf-8")
    found = re.search(r'^__version__ = "(.+)"', text, re.MULTILINE)
    assert found is not None, f"{folder} has no version"
    return found[1]


def _fits(folder: Path) -> bool:
    """The wheel's own tag, as pip --python-version may have fetched another interpreter's."""
    tags = [
        line.removeprefix("Tag: ")
        for path in folder.glob("tensorrt*bindings*.dist-info/WHEEL")
        for line in path.read_text(encoding="utf-8").splitlines()
        if line.startswith("Tag: ")
    ]
    mine = "cp{}{}".format(*sys.version_info[:2])
    return (folder / PACKAGE / "__init__.py").is_file() and any(t.startswith(mine) for t in tags)
