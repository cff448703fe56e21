"""Building an engine: one path over TensorRT 10.3 to 11.4 and TensorRT-RTX.

The network is strongly typed, so the graph's own types decide what is computed in FP16. What came
out is looked at afterwards (`layer_precision`), because not every version says when it did
something else.

TensorRT-RTX is built and verified by the tests on machines without a GPU. The standard library's
path has not yet been run on a GPU; ``pytest -m gpu tests/gpu`` and ``edge-restore build svdn
--flavour tensorrt --precision fp16 --size 720x1280 --verbose`` check it.
"""

from __future__ import annotations

import contextlib
import errno
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from edge_restore.engine import layer_precision, network, timing_cache
from edge_restore.engine.build_log import BuildLog, make_logger
from edge_restore.engine.build_monitor import make_monitor
from edge_restore.engine.cache import EngineCache, layers_path
from edge_restore.engine.layer_precision import Layer, Precisions
from edge_restore.engine.manifest import EngineError, EngineManifest, load_checked, manifest_path
from edge_restore.engine.plan import Plan
from edge_restore.errors import BackendError, SinkError
from edge_restore.machine import process
from edge_restore.models.cards import FileDigest, TensorPort
from edge_restore.storage import trusted_file
from edge_restore.storage.files import atomic_path, check_writable, write_text

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

_SPARE_BYTES = 1 << 20
"""Kept free beside an engine, for its manifest and for whoever else writes."""


@dataclass(frozen=True)
class Built:
    """An engine in memory.

    Attributes:
        engine: the serialised engine.
        precisions: how many of its layers compute in what.
        verified_by: how that is known, see `EngineManifest.verified_by`.
        log: what the builder said.
        inspector: the engine inspector's JSON; empty where the engine cannot be loaded.
    """

    engine: bytes
    precisions: Precisions
    verified_by: str
    log: BuildLog
    inspector: str = ""


def obtain(
    plan: Plan,
    store: EngineCache,
    *,
    command: str,
    force: bool = False,
    log: BuildLog | None = None,
    note: Callable[[str], None] = lambda _: None,
) -> tuple[Path, Built | None]:
    """The engine of `plan` in the cache, built when it is not there or must not be loaded.

    Args:
        command: for the manifest.
        force: build it in any case.
        log: filled while it builds.
        note: is told why an engine that was there is built again.

    Returns:
        The engine's path, and what was built, or None when it was there.

    Raises:
        UserError: it cannot be built or written; another process did not finish building it.
    """
    engine = store.path(plan.card.name, plan.key)
    with store.building(engine):
        if engine.exists() and not force:
            try:
                load_checked(engine, plan.expectation)
            except EngineError as error:
                note(f"building again: {error.found}")
            else:
                store.touch(engine)
                return engine, None
        built = build(plan, timing_folder=store.folder, log=log)
        write(built, plan, engine, command=command)
        store.prune(keep=engine)
    return engine, built


def build(
    plan: Plan,
    *,
    timing_folder: Path | None = None,
    log: BuildLog | None = None,
    content: bytes | None = None,
) -> Built:
    """Build the engine of `plan` in memory and verify its precision.

    Args:
        timing_folder: where the standard library's timing cache is kept; None for nowhere.
        log: filled while it builds, so that the caller has it when the build fails.
        content: an ONNX file to build instead of the plan's own, one with further outputs say.

    Raises:
        BackendError: an operator that the flavour lacks, or a build that failed or came out in
            another precision.
        ModelError: the graph is not what its card says.
        Interrupted: a signal came; the builder was stopped at its next step.
    """
    log = BuildLog() if log is None else log
    flavour, trt = plan.flavour, plan.flavour.trt
    logger = make_logger(trt, log)
    if plan.card.deformable == "plugin" and flavour.name == "tensorrt":
        from edge_restore.engine.plugin import registry as plugin

        plugin.register(trt)
    builder = trt.Builder(logger)
    blob: Any = None
    parsed = None
    with process.stop_on_signal() as stop:
        typings = network.typings(flavour)
        for weak in typings:
            try:
                parsed = network.parse(builder, logger, plan, weak=weak, content=content)
            except BackendError:
                if weak == typings[-1]:
                    raise
                continue
            config = _configure(builder, parsed.definition, plan, weak=weak)
            with make_monitor(trt, config, stop, sys.stderr) as monitor:
                cache = timing_cache.attach(config, plan, timing_folder)
                blob = builder.build_serialized_network(parsed.definition, config)
                del monitor
            if stop.event.is_set():
                raise process.Interrupted(stop.signal_number)
            if blob is not None:
                timing_cache.keep(config, cache)
                break
    if blob is None or parsed is None:
        raise _failed(plan, log)
    engine = bytes(blob)
    inspector = _inspect(trt, logger, engine) if plan.gpu is not None else ""
    precisions, verified_by = _verify(plan, parsed, log, inspector)
    return Built(engine, precisions, verified_by, log, inspector)


def write(built: Built, plan: Plan, path: Path, *, command: str) -> EngineManifest:
    """Write the engine and then its manifest; what stood there stays when anything is wrong.

    Raises:
        SinkError: no space, or no permission.
    """
    check_writable(path)
    _check_space(path.parent, len(built.engine))
    card, size = plan.card, (1, plan.height, plan.width, 3)
    manifest = EngineManifest(
        model=card.name,
        engine=FileDigest(path.name, trusted_file.digest(built.engine), len(built.engine)),
        onnx=FileDigest(plan.model.name, card.onnx.sha256, plan.model.stat().st_size),
        kernel_sha256=plan.kernel_sha256,
        flavour=plan.flavour.name,
        flavour_version=plan.flavour.version,
        gpu=plan.gpu.name if plan.gpu else None,
        targets=plan.targets,
        driver=plan.gpu.driver if plan.gpu else None,
        input=_port(card.input, size),
        output=_port(card.output, size),
        height=plan.height,
        width=plan.width,
        precision=plan.precision,
        layers=built.precisions,
        verified_by=built.verified_by,
        build_log_sha256=built.log.sha256,
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        command=command,
    )
    try:
        with atomic_path(path, durable=True, mode=trusted_file.MODE) as temporary:
            temporary.write_bytes(built.engine)
        manifest.write(manifest_path(path))
        with contextlib.suppress(OSError):
            layers_path(path).unlink(missing_ok=True)
        if built.inspector:
            write_text(layers_path(path), built.inspector)
    except SinkError as error:
        cause = error.__cause__
        if isinstance(cause, OSError) and cause.errno in _FULL:
            raise _no_space(path.parent, len(built.engine), cause.strerror or "full") from cause
        raise
    return manifest


def _configure(builder: Any, definition: Any, plan: Plan, *, weak: bool) -> Any:
    trt = plan.flavour.trt
    config = builder.create_builder_config()
    # So that the log and the inspector tell the layers' types.
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if weak:
        network.allow_lower_precision(trt, config, plan.precision)
    if plan.flavour.chooses_targets:
        config.num_compute_capabilities = len(plan.targets)
        for place, target in enumerate(plan.targets):
            name = f"SM{target.removeprefix('sm_')}"
            config.set_compute_capability(getattr(trt.ComputeCapability, name), place)
    profile = builder.create_optimization_profile()
    shape = (1, plan.height, plan.width, 3)
    profile.set_shape(definition.get_input(0).name, shape, shape, shape)
    if -1 in tuple(definition.get_input(0).shape):
        config.add_optimization_profile(profile)
    return config


def _inspect(trt: Any, logger: Any, engine: bytes) -> str:
    """The inspector's JSON; empty when the engine is for another GPU and cannot be loaded here."""
    loaded = trt.Runtime(logger).deserialize_cuda_engine(engine)
    if loaded is None:
        return ""
    inspector = loaded.create_engine_inspector()
    return str(inspector.get_engine_information(trt.LayerInformationFormat.JSON))


def _verify(
    plan: Plan, parsed: network.Parsed, log: BuildLog, inspector: str
) -> tuple[Precisions, str]:
    sources: tuple[tuple[str, list[Layer]], ...] = (
        ("inspector", layer_precision.from_inspector(inspector)),
        ("build log", layer_precision.from_log(log.layers_dump())),
    )
    typed = parsed.typed[plan.precision]
    for source, layers in sources:
        precisions = Precisions.of(layers)
        if sum(precisions.matrix.values()):
            layer_precision.check(precisions, plan.precision, typed)
            return precisions, source
    # One opaque node in the inspector, or a library whose log has no list: then a strongly typed
    # network is all that can be said, and a weakly typed one says nothing.
    if not parsed.strong and plan.precision != "fp32":
        raise BackendError(
            f"{plan.flavour.title} {plan.flavour.version} does not tell what the engine computes "
            "in, and its network is weakly typed; it was not written",
            expected="an engine whose layers can be seen to compute in the precision asked for",
            hint="use a version with strongly typed networks, or --precision fp32",
        )
    counts = Precisions(dict(parsed.typed), dict(parsed.typed))
    return counts, "network types"


def _failed(plan: Plan, log: BuildLog) -> BackendError:
    reasons = log.errors() or ["the builder gave no reason"]
    return BackendError(
        f"{plan.flavour.title} {plan.flavour.version} cannot build '{plan.model.name}' for "
        f"{plan.height}x{plan.width}:\n    " + "\n    ".join(reasons[-3:]),
        expected="a network and a size that it takes, and memory for them",
        hint="try a smaller --size; --verbose shows what the builder says",
    )


def _check_space(folder: Path, needed: int) -> None:
    try:
        free = shutil.disk_usage(folder).free
    except OSError:  # then writing will tell
        return
    if free < needed + _SPARE_BYTES:
        raise _no_space(folder, needed, f"{free} bytes are free")


def _no_space(folder: Path, needed: int, reason: str) -> SinkError:
    return SinkError(
        f"there is no space for the engine in '{folder}': {reason}",
        expected=f"{needed + _SPARE_BYTES} bytes",
        hint="free space (`edge-restore engines --prune`), or choose another place with -o or "
        "--cache",
    )


def _port(port: TensorPort, shape: tuple[int, ...]) -> TensorPort:
    return replace(port, shape=shape)
