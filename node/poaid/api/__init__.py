"""What the outside sees: views, HTTP, and asking a running node."""
