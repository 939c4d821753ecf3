"""Scores of a segmentation against a reference: pure functions and additive tables."""
