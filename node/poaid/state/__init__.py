"""Accounts at a block, and how they move to another."""
