"""Scores of stitched stacks against their references."""
