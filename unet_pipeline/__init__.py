"""Seamless U-Net segmentation of microscopy stacks too large for memory."""

__version__ = "0.1.0"
