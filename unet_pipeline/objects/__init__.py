"""Distances between objects and connected components, exact block by block."""
