"""The networks: the paper's with its named departures, and those on torchvision's encoders."""
