"""The demonstration: a photo under a simulated hand's motion, restored, with its ground truth."""
