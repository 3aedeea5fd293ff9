"""Measurements, simulations and their plots: the command `poai bench`."""
