"""Engines that run the exact forward pass, and the model files they load."""
