"""An engine that is none, with its manifest: whatever is checked before TensorRT sees it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edge_restore.engine.layer_precision import Precisions
from edge_restore.engine.manifest import EngineManifest, Expectation, manifest_path
from edge_restore.models.cards import FileDigest, TensorPort
from edge_restore.storage.trusted_file import digest

ENGINE = b"not an engine, but nobody looks into it before all else is checked" * 8
COUNTS = {"int8": 0, "fp16": 36, "fp32": 2, "other": 1}


def make_manifest(name: str = "svdn.engine", content: bytes = ENGINE, **changes: Any) -> Any:
    port = TensorPort("image", "uint8", "NHWC", (1, 720, 1280, 3))
    fields: dict[str, Any] = {
        "model": "svdn",
        "engine": FileDigest(name, digest(content), len(content)),
        "onnx": FileDigest("svdn-gridsample-fp16.onnx", "a" * 64, 1000),
        "kernel_sha256": "b" * 64,
        "flavour": "tensorrt",
        "flavour_version": "11.4.0.106",
        "gpu": "NVIDIA GeForce RTX 4060",
        "targets": ("sm_89",),
        "driver": "580.65.06",
        "input": port,
        "output": TensorPort("restored", "uint8", "NHWC", (1, 720, 1280, 3)),
        "height": 720,
        "width": 1280,
        "precision": "fp16",
        "layers": Precisions(COUNTS, {"int8": 0, "fp16": 36, "fp32": 0, "other": 0}),
        "verified_by": "inspector",
        "build_log_sha256": "c" * 64,
        "created": "2026-11-21T08:00:00+00:00",
        "command": "edge-restore build svdn --precision fp16 --size 720x1280",
        **changes,
    }
    return EngineManifest(**fields)


EXPECTED = Expectation(
    onnx_sha256="a" * 64,
    flavour="tensorrt",
    flavour_version="11.4.0.106",
    target="sm_89",
    height=720,
    width=1280,
    precision="fp16",
    kernel_sha256="b" * 64,
)


def write_engine(folder: Path, name: str = "svdn.engine", content: bytes = ENGINE) -> Path:
    path = folder / name
    path.write_bytes(content)
    path.chmod(0o644)
    make_manifest(name, content).write(manifest_path(path))
    return path
