"""What a notebook imports: the stages on one image, from arrays to arrays."""
