"""Peers: transport, what is asked and served, and sync."""
