"""Readers of each format of images."""
