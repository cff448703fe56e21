"""DeformConv for TensorRT: kernels, and the plugins that run them."""
