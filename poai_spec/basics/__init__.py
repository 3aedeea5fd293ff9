# # Basics  [generated from specs/basics/README.md by `poai spec compile`: edit the page]

# What every other page stands on. [The specification](../README.md) has all pages in reading order.

# - [notation](notation.md): integers, hashes, the three classes of errors
# - [encoding](encoding.md): SSZ, one encoding a value
# - [parameters](parameters.md): the numbers of networks and of version 1, models
# - [containers](containers.md): header core, header, body, block, and their hashes
# - [drbg](drbg.md): uniform integers from a seed
