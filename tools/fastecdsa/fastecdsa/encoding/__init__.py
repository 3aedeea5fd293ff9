"""Encodings of keys, without keys."""
