"""What `poai explain` says of one block.

`source` finds the block, `fields` takes its bytes apart, `checks` applies every rule, `explanation` puts all of it
together, and `report` prints it.
"""
