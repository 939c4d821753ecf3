"""A model: geometry, networks, card, normalisation."""
