"""Prediction: tiles, plan and network to shards."""
