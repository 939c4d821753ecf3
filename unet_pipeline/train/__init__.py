"""Training: labelled stacks to a model."""
