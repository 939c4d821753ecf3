"""Calibration: how objects are made, chosen by the score of the validation planes."""
