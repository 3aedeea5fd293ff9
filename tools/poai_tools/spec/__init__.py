"""The pages: compiled, searched, and where they lie."""
