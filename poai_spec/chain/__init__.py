# # The chain  [generated from specs/chain/README.md by `poai spec compile`: edit the page]

# Headers, bodies and blocks, which chain is the chain, and what nodes say to each other. [The specification](../README.md) has all pages in reading order.

# - [upgrades](upgrades.md): the rules of a height, fork ids
# - [body](body.md): what a block carries beside its header
# - [header](header.md): genesis, and the rules for a header
# - [production](production.md): the next block, seen by its maker
# - [block](block.md): every check of a block, in one total order
# - [fork-choice](fork-choice.md): which chain is the chain
# - [networking](networking.md): what nodes say to each other, limits, and what a fault costs
# - [walkthrough](walkthrough.md): one block from seed to reward, with every number
