"""Restores blurred video in a streaming pipeline on the machine that films it."""

__version__ = "0.1.0"
