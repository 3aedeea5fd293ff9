# # Economics  [generated from specs/proof/economics.md by `poai spec compile`: edit the page]

# Status: normative, version 1.

# Every block after genesis creates new money for its miner: 5 POAI at first, half as much after every 210,000 blocks
# (four years at 600 s). There is no other way in which money comes into being, and in version 1 none in which it moves.


from poai_spec.basics.notation import Height, Wei
from poai_spec.basics.parameters import HALVING_BLOCKS, INITIAL_SUBSIDY


# ## Functions

# ### `compute_subsidy`


def compute_subsidy(height: Height) -> Wei:
    """Return what the block at `height` creates, wei: nothing for genesis, nor for any block from 13,230,001 on."""
    if height == 0:
        return 0
    return INITIAL_SUBSIDY >> (height - 1) // HALVING_BLOCKS


# ### `compute_supply`


def compute_supply(height: Height) -> Wei:
    """Return all that the blocks 0 .. `height` created, wei."""
    eras, rest = divmod(height, HALVING_BLOCKS)
    paying = min(eras, INITIAL_SUBSIDY.bit_length())  # later eras create nothing
    return HALVING_BLOCKS * sum(INITIAL_SUBSIDY >> era for era in range(paying)) + rest * (INITIAL_SUBSIDY >> eras)


# ```pycon
# >>> from poai_spec.proof.economics import compute_subsidy, compute_supply
# >>> [compute_subsidy(h) for h in (0, 1, 210_000, 210_001)]
# [0, 5000000000000000000, 5000000000000000000, 2500000000000000000]
# >>> compute_subsidy(13_230_000), compute_subsidy(13_230_001)
# (1, 0)
# >>> compute_supply(2**64 - 1)
# 2099999999999999996010000


# ## Rationale

# - **Blocks 1 .. 210,000 are the first era**, a full one: genesis pays nothing and is not counted.
# - **A shift, not a division table.** The subsidy is exact as long as 5 * 10^18 is divisible by the power of two (18
#   halvings) and rounded down after that. It becomes 0 by itself after 63 halvings, some 252 years. Beware in C, Java or
#   JavaScript: a shift by 64 or more is undefined or taken modulo 64 there, and would pay again; compare first.
# - **A zero subsidy touches no account** (page [state](../execution/state.md)): otherwise a block could create empty accounts for ever.
