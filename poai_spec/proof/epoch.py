# # Epochs  [generated from specs/proof/epoch.md by `poai spec compile`: edit the page]

# Status: normative, version 1.

# An epoch is `epoch_blocks` consecutive heights. All its blocks share a key, and the key enters every quiz. The key is made
# from the last block of the epoch before, so nobody can prepare quizzes for an epoch that has not begun: the prototype's
# seed, height + nonce, could be tabulated for ever.


from poai_spec.basics.notation import Hash32, Height, keccak256, uint64_le
from poai_spec.chain.upgrades import Rules


# The length of an epoch is the same for ever, so epochs go on through every upgrade (page [upgrades](../chain/upgrades.md)).

# ## Functions

# ### `get_epoch`


def get_epoch(height: Height, rules: Rules) -> int:
    """Return the epoch that a height belongs to; genesis is in epoch 0."""
    return height // rules.epoch_blocks


# ### `get_seed_height`

# The seed of an epoch is the block hash found at this height *on the branch that is extended*. Two branches that part
# before it have different keys from there on. Epoch 0 has no block before it: its seed is `rules.genesis_seed`.


def get_seed_height(epoch: int, rules: Rules) -> Height:
    """Return the height of the block whose hash is the seed of `epoch`, for epoch >= 1: the last one before it."""
    assert epoch >= 1, "the seed of epoch 0 is rules.genesis_seed"
    return epoch * rules.epoch_blocks - 1


# ### `compute_epoch_key`

# One of two places without a tag (the other is Ethereum's account trie, page state): the formula is that of the project's first description and is kept.


def compute_epoch_key(seed: Hash32, epoch: int) -> Hash32:
    """Return `Keccak256(seed || uint64_le(epoch))`, 40 bytes hashed.

    Args:
        seed: the genesis seed for epoch 0, else the hash of the block at `get_seed_height(epoch, rules)`.
        epoch: index of the epoch.
    """
    return keccak256(seed + uint64_le(epoch))


# ```pycon
# >>> from poai_spec.proof.epoch import compute_epoch_key
# >>> compute_epoch_key(bytes(32), 0).hex()
# 'daa77426c30c02a43d9fba4e841a6556c524d47030762eb14dc4af897e605d9b'
# >>> compute_epoch_key(bytes(32), 1).hex()
# '210e5b4204cc718ae577ed39be7024eb237245ba18c97d96a0c9e465fe617f5c'


# ## Rationale

# - **No confusion with tagged hashes.** A tagged hash covers at least the 32 bytes of its tag's digest; the epoch key covers
#   40 bytes that begin with a block hash or the genesis seed. For the two to meet, a block hash would have to equal the
#   Keccak of a tag.
# - **The key depends on the branch.** A miner of an epoch's last block can try several of them and so choose among keys,
#   but each try costs a whole block, and quizzes of one key are worth no more than those of another.
# - **Epoch blocks equal retarget blocks on mainnet** only because both fit two weeks; no rule couples them.
