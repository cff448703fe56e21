"""What `doctor` tells of the routes into an engine."""

from __future__ import annotations

import importlib.util
import json

import pytest

from edge_restore.cli import main
from edge_restore.engine import flavour, routes
from edge_restore.engine.gpu import Gpu, this_gpu
from edge_restore.engine.routes import RouteStatus

ROUTES = ["plugin in the engine", "plugin in Python", "GridSample", "the library's own plugin"]


def by_name() -> dict[tuple[str, str], RouteStatus]:
    return {(status.library, status.route): status for status in routes.statuses()}


def test_every_library_and_route_has_one_line() -> None:
    found = by_name()
    assert list(found) == [(lib, route) for lib in ("TensorRT", "TensorRT-RTX") for route in ROUTES]
    assert all(status.detail and "\n" not in status.detail for status in found.values())


def test_doctor_shows_them(capsys: pytest.CaptureFixture[str]) -> None:
    main(["doctor", "--json"])
    document = json.loads(capsys.readouterr().out)
    checks = {check["name"]: check for check in document["checks"]}
    for status in routes.statuses():
        check = checks[f"{status.library}, {status.route}"]
        assert (check["ok"], check["detail"]) == (status.available, status.detail)
        assert not check["required"]


def test_a_library_that_is_missing_says_how_to_get_it() -> None:
    if importlib.util.find_spec("tensorrt") is not None:
        pytest.skip("TensorRT is installed")
    for route in ROUTES:
        status = by_name()["TensorRT", route]
        assert not status.available
        assert "pip install 'edge-restore[gpu]'" in status.detail
        assert "python3-libnvinfer" in status.detail


def test_rtx_takes_gridsample_alone() -> None:
    found = by_name()
    for route in ROUTES:
        status = found["TensorRT-RTX", route]
        if route != "GridSample":
            assert not status.available and "takes no plugins" in status.detail
    status = found["TensorRT-RTX", "GridSample"]
    if importlib.util.find_spec("tensorrt_rtx") is None:
        assert "pip install 'edge-restore[rtx]'" in status.detail
    else:
        assert status.available and "TensorRT-RTX 1." in status.detail


def test_a_gpu_that_is_too_old_for_the_kernel() -> None:
    old = Gpu("Tesla T4", (7, 5), "550.54")
    available, detail = routes._with_kernel(old, "")
    assert not available and "sm_75, too old" in detail
    new = Gpu("an unknown one", (13, 0), "700.1")
    available, detail = routes._with_kernel(new, "fine")
    assert available and detail == "kernel for sm_80 on sm_130: fine"


def test_without_a_gpu_the_standard_library_builds_nothing() -> None:
    if this_gpu() is not None or importlib.util.find_spec("tensorrt") is None:
        pytest.skip("only where TensorRT is and a GPU is not")
    flavour.load("tensorrt")
    assert not any(s.available for s in routes.statuses() if s.library == "TensorRT")
