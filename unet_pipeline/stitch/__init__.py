"""Stitching: shards to objects."""
