"""Manifests: what an engine is, what it was built from, and for which machine.

An engine is executable content: loading it runs what is in it. So `load_checked` looks at the file
before anybody hands it to TensorRT: its owner and mode, its hash, and everything that the manifest
beside it (``svdn.engine`` and ``svdn.manifest.json``) says of library, GPU, size and precision.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from edge_restore.engine.flavour import NAMES as FLAVOURS
from edge_restore.engine.layer_precision import KINDS, Precisions
from edge_restore.errors import UserError
from edge_restore.models.cards import PRECISIONS, FileDigest, TensorPort
from edge_restore.storage import trusted_file
from edge_restore.storage.files import open_input, write_text
from edge_restore.storage.json_fields import MAX_COMMAND, MAX_SIDE, JsonFields, is_integer
from edge_restore.storage.json_file import decode, encode
from edge_restore.storage.trusted_file import EngineError

__all__ = ["EngineError", "EngineManifest", "Expectation", "Loaded", "load_checked"]

_FAMILY = "edge_restore.engine_manifest/"
SCHEMA = f"{_FAMILY}1"
VERIFIERS = ("inspector", "build log", "network types")
_LARGEST_MANIFEST = 1 << 20
REBUILD = "build it again with `edge-restore build`"


@dataclass(frozen=True)
class EngineManifest:
    """What an engine file is.

    Attributes:
        model: the name on the ONNX file's card.
        engine: the engine file beside the manifest.
        onnx: what it was built from.
        kernel_sha256: of the PTX of our deformable convolution, see `Plan`; None without.
        flavour: "tensorrt" or "rtx".
        flavour_version: of the library that built it.
        gpu: name of the GPU it was built on; None where there was none.
        targets: compute capabilities that it is for, e.g. ("sm_86",).
        driver: version on the building machine; None without a GPU.
        input: and `output`: the ports, with the size it was built for.
        height: and `width`: what it takes; frames are padded to it.
        precision: what its convolutions compute in, apart from islands.
        layers: how many layers compute in what.
        verified_by: how that was found out: the engine inspector, the build log, or, weakest, the
            types of the strongly typed network that went into the builder.
        build_log_sha256: of everything that the builder said.
        created: UTC, ISO 8601.
        command: that built it.
    """

    model: str
    engine: FileDigest
    onnx: FileDigest
    kernel_sha256: str | None
    flavour: str
    flavour_version: str
    gpu: str | None
    targets: tuple[str, ...]
    driver: str | None
    input: TensorPort
    output: TensorPort
    height: int
    width: int
    precision: str
    layers: Precisions
    verified_by: str
    build_log_sha256: str
    created: str
    command: str
    schema: str = field(default=SCHEMA)

    @classmethod
    def from_json(cls, document: Any, origin: str = "the manifest") -> EngineManifest:
        """The manifest in a decoded JSON object.

        Raises:
            EngineError: the object is not a manifest; lists everything that is wrong.
        """
        fields = JsonFields(document)
        schema = document.get("schema") if isinstance(document, dict) else None
        if isinstance(schema, str) and schema != SCHEMA:
            raise EngineError(
                f"{origin} has the schema '{schema[:80]}', which this version does not know",
                expected=SCHEMA,
                hint=f"{REBUILD}, with this version",
            )
        layers = fields.child("layers")
        manifest = cls(
            schema=fields.choice("schema", (SCHEMA,)),
            model=fields.text("model"),
            engine=_digest(fields.child("engine")),
            onnx=_digest(fields.child("onnx")),
            kernel_sha256=_or_null(fields, "kernel_sha256", fields.digest),
            flavour=fields.choice("flavour", FLAVOURS),
            flavour_version=fields.text("flavour_version"),
            gpu=_or_null(fields, "gpu", fields.text),
            targets=tuple(fields.items("targets", _is_target, "targets like sm_86")),
            driver=_or_null(fields, "driver", fields.text),
            input=_port(fields.child("input")),
            output=_port(fields.child("output")),
            height=fields.integer("height", 1, MAX_SIDE),
            width=fields.integer("width", 1, MAX_SIDE),
            precision=fields.choice("precision", PRECISIONS),
            layers=Precisions(_counts(layers.child("all")), _counts(layers.child("matrix"))),
            verified_by=fields.choice("verified_by", VERIFIERS),
            build_log_sha256=fields.digest("build_log_sha256"),
            created=fields.text("created"),
            command=fields.text("command", MAX_COMMAND),
        )
        if "targets" in fields.document and not manifest.targets and not fields.errors:
            fields.errors.append("targets is empty")
        if fields.errors:
            raise EngineError(
                f"{origin} is not a manifest that can be used:{fields.listing()}",
                expected=f"a JSON object of schema {SCHEMA}",
                hint=REBUILD,
            )
        return manifest

    def to_json(self) -> dict[str, Any]:
        """The manifest as a JSON object, schema first."""
        fields = asdict(self)
        document = {"schema": fields.pop("schema"), **fields}
        return dict(decode(encode(document)))

    def write(self, path: str | Path) -> None:
        """Write the manifest to `path`, whole or not at all; only the owner may change it."""
        write_text(path, encode(self.to_json(), indent=2) + "\n", mode=trusted_file.MODE)


@dataclass(frozen=True)
class Expectation:
    """What an engine must be to be used; None is not looked at.

    Attributes:
        height: and `width`: what it must take, padded.
        target: the GPU that will run it, e.g. "sm_86".
    """

    onnx_sha256: str | None = None
    flavour: str | None = None
    flavour_version: str | None = None
    target: str | None = None
    height: int | None = None
    width: int | None = None
    precision: str | None = None
    kernel_sha256: str | None = None


@dataclass(frozen=True)
class Loaded:
    """An engine that may be deserialised: the very bytes whose hash was checked."""

    engine: bytes
    manifest: EngineManifest


def manifest_path(engine: str | Path) -> Path:
    """Where the manifest of an engine lies: ``svdn.engine`` -> ``svdn.manifest.json``."""
    return Path(engine).with_suffix(".manifest.json")


def load_checked(engine: str | Path, expect: Expectation | None = None) -> Loaded:
    """The engine's bytes and manifest, after everything that can be checked was.

    Both files must be plain files in the folder itself (no links), owned by this user or root, and
    writable by the owner alone. The file is read once, and the bytes that are hashed are the bytes
    that are returned.

    Raises:
        EngineError: anything is not as the manifest says or as `expect` asks.
    """
    engine = Path(engine)
    manifest = read_manifest(engine)
    _check_expectation(engine, manifest, expect or Expectation())
    content = trusted_file.read(engine, "the engine", REBUILD)
    recorded = manifest.engine.bytes or 0
    if len(content) != recorded:
        change = "truncated" if len(content) < recorded else "longer than it was"
        raise EngineError(
            f"the engine '{engine}' is {change}: {len(content)} bytes",
            expected=f"{recorded} bytes, as its manifest says",
            hint=REBUILD,
        )
    digest = trusted_file.digest(content)
    if digest != manifest.engine.sha256:
        raise EngineError(
            f"the engine '{engine}' was changed: its SHA-256 is {digest}",
            expected=f"{manifest.engine.sha256}, as its manifest says",
            hint=f"{REBUILD}; do not load an engine that somebody may have changed",
        )
    return Loaded(content, manifest)


def read_manifest(engine: str | Path) -> EngineManifest:
    """The manifest beside an engine, after the checks of the file itself.

    Raises:
        EngineError: it is missing, not to be trusted, malformed, or of another engine.
    """
    engine = Path(engine)
    path = manifest_path(engine)
    content = trusted_file.read(path, "the manifest", REBUILD, limit=_LARGEST_MANIFEST)
    try:
        document = decode(content)
    except ValueError as error:
        raise EngineError(
            f"the manifest '{path}' cannot be used: {error}",
            expected="the manifest that was written with the engine",
            hint=REBUILD,
        ) from error
    manifest = EngineManifest.from_json(document, f"'{path}'")
    if manifest.engine.file != engine.name:
        raise EngineError(
            f"'{path}' is the manifest of '{manifest.engine.file}'",
            expected=f"the manifest of '{engine.name}'",
            hint="keep an engine and its manifest under the names they were built with",
        )
    return manifest


def names_engine(engine: Path) -> bool:
    """Whether the manifest beside an engine, there or not, is one of ours and names this file.

    Whether the two can be trusted is another question: see `read_manifest`.
    """
    try:
        with open_input(manifest_path(engine), "the manifest") as file:
            document = decode(file.read(_LARGEST_MANIFEST))
        named = document["engine"]["file"]
        return bool(document["schema"].startswith(_FAMILY) and named == engine.name)
    except (UserError, OSError, ValueError, RecursionError, LookupError, TypeError, AttributeError):
        return False


def _check_expectation(engine: Path, manifest: EngineManifest, expect: Expectation) -> None:
    for wanted, found, what in (
        (expect.onnx_sha256, manifest.onnx.sha256, "from another ONNX file: its SHA-256 is"),
        (expect.flavour, manifest.flavour, "by another flavour of TensorRT:"),
        (expect.flavour_version, manifest.flavour_version, "by another version of TensorRT:"),
        (expect.height, manifest.height, "for another height:"),
        (expect.width, manifest.width, "for another width:"),
        (expect.precision, manifest.precision, "in another precision:"),
        (expect.kernel_sha256, manifest.kernel_sha256, "with another deformable kernel:"),
    ):
        if wanted is not None and wanted != found:
            raise EngineError(
                f"the engine '{engine}' was built {what} {found}",
                expected=str(wanted),
                hint=REBUILD,
            )
    if expect.target is not None and expect.target not in manifest.targets:
        raise EngineError(
            f"the engine '{engine}' was built for other GPUs: {', '.join(manifest.targets)}",
            expected=f"{expect.target}, the GPU that is to run it",
            hint=f"{REBUILD} on this machine, or with --target {expect.target}",
        )


def _is_target(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch("sm_[0-9]{2,3}[a-z]?", value) is not None


def _digest(fields: JsonFields) -> FileDigest:
    return FileDigest(fields.file_name("file"), fields.digest("sha256"), fields.integer("bytes", 1))


def _or_null(fields: JsonFields, key: str, read: Any) -> Any:
    if key in fields.document and fields.document[key] is None:
        return None
    return read(key)


def _counts(fields: JsonFields) -> dict[str, int]:
    return {kind: fields.integer(kind, 0) for kind in KINDS}


def _port(fields: JsonFields) -> TensorPort:
    shape = fields.take(
        "shape",
        "a list of four positive integers",
        lambda v: (
            isinstance(v, list)
            and len(v) == 4
            and all(is_integer(n) and 0 < n <= MAX_SIDE for n in v)
        ),
        [1] * 4,
    )
    return TensorPort(
        name=fields.text("name"),
        dtype=fields.choice("dtype", ("uint8", "float32")),
        layout=fields.choice("layout", ("NHWC", "NCHW")),
        shape=tuple(shape),
    )


def in_words(layers: Mapping[str, int]) -> str:
    """Counts in words, e.g. "36 fp16, 2 fp32"."""
    return ", ".join(f"{n} {kind}" for kind, n in layers.items() if n) or "none"
