# # The PoAI specification  [generated from specs/README.md by `poai spec compile`: edit the page]

# The normative pages, in reading order. They are markdown with Python: the code blocks together are the package
# `poai_spec`, compiled line for line, so it can be imported, stepped through and tested.
