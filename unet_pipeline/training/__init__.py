"""What `train` is made of: sampling, augmentation, loss, the loop, checkpoints."""
