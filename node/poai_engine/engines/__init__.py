"""Engines: each runs the forward pass of one model, and all of one profile give the same bits."""
