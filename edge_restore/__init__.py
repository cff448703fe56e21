"""Restores blurred video in a streaming pipeline on the machine that films it."""

import os

__version__ = "0.1.0"

# ONNX Runtime reads this once, when it is loaded. Its wheels for Linux send what they run to their
# maker from 1.29 on unless it is set; no package here does without it.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
