"""Fitting a checkpoint to the place and the sensors of a recording without labels."""
