# # Execution  [generated from specs/execution/README.md by `poai spec compile`: edit the page]

# What blocks do to accounts. [The specification](../README.md) has all pages in reading order.

# - [state](state.md): accounts and the state root
