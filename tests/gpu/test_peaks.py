"""The peaks of a real GPU: `pytest -m gpu tests/gpu/test_peaks.py`. Not yet run on one."""

import pytest

from edge_restore.bench import gpu_peaks
from edge_restore.engine import flavour
from edge_restore.engine.gpu import this_gpu
from edge_restore.errors import DependencyError

pytestmark = pytest.mark.gpu


def test_peaks_are_of_the_order_of_a_gpu():
    gpu = this_gpu()
    if gpu is None:
        pytest.skip("no NVIDIA GPU here")
    try:
        library = flavour.load("auto")
    except DependencyError as error:
        pytest.skip(error.found)
    found = gpu_peaks.of_this_gpu(gpu.name, library)
    print(found)
    assert found.fp32 is not None and found.fp16 is not None and found.bandwidth is not None
    assert 1e11 < found.fp32 < found.fp16 < 1e16
    assert 1e10 < found.bandwidth < 1e13
