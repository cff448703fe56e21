"""The deformable convolution as one GPU kernel: its source, its compilation to PTX, its launch."""
