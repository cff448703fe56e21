"""What holds for all tests: they share the cores with the workers beside them."""

import os

if "PYTEST_XDIST_WORKER" in os.environ:  # before numpy, OpenCV and torch are imported
    os.environ["OMP_NUM_THREADS"] = "1"
