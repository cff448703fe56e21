"""Engines: what TensorRT builds from an ONNX file, and the kernels that go into it."""
