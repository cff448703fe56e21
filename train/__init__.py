"""Training: networks, synthetic blur, trainer. Runs on a workstation, never on a camera."""
