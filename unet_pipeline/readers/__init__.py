"""Readers of image files, one module per format; `inputs` is their front door."""
