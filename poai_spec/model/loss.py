# # Loss and trace  [generated from specs/model/loss.md by `poai spec compile`: edit the page]

# Status: normative, version 1.

# What a forward pass leaves in a header: the *loss*, one integer, and the *trace digest*, which commits to the pass itself.
# Both go with the quiz seed into one hash, `l_hat`, and a block has work when `l_hat` is below its target. The list of
# trace entries travels with the block, so that a verifier can stop at the first false one.


from collections.abc import Sequence

from poai_spec.basics.notation import (
    Hash32, Target, int8_bytes, int32_le, tagged_hash, uint32_le, uint64_le, uint256_be,
)  # fmt: skip


# ## Loss

# The quiz says which positions are scored. The loss is the sum of their negative log-likelihoods (page
# [inference](inference.md)), bits in Q16: `Evaluation.loss` of the page [engine](engine.md). Each term is at least 0 and
# below 2^34, and a quiz has at most 2,047 scored positions, so the sum is a uint64.

# ## Trace

# A trace has L + 1 entries for a model of L transformer blocks: one after each block, from the residual row of the *last*
# position, and one, the output entry, from the head's input at *every* position and from the scored losses. Causal
# attention makes the last position depend on all others, so an entry cannot be known without the layers below it.
# The number of values in an entry is fixed by the model and the config, so nothing in it needs a length.

# ### `compute_layer_entry`


def compute_layer_entry(layer: int, row: Sequence[int]) -> Hash32:
    """Return the trace entry of one transformer block.

    Args:
        layer: 1 .. L, counted from the first block.
        row: the residual row of the last position after that block; D values in Q14, int32.
    """
    return tagged_hash("PoAI/trace/1", uint32_le(layer), int32_le(tuple(row)))


# ### `compute_output_entry`


def compute_output_entry(scales: Sequence[Sequence[int]], rows: Sequence[Sequence[int]], nlls: Sequence[int]) -> Hash32:
    """Return the last trace entry: what the head saw and what was scored.

    Args:
        scales: the scale (e1, e2, f) of each position's quantised row at the head's input, three bytes.
        rows: these rows in order of position, T rows of D values in -127 .. 127, a byte each.
        nlls: the scored negative log-likelihoods in order of position; bits in Q16, uint64.
    """
    positions = [bytes(scale) + int8_bytes(tuple(row)) for scale, row in zip(scales, rows, strict=True)]
    return tagged_hash("PoAI/trace-output/1", *positions, *[uint64_le(nll) for nll in nlls])


# ### `compute_trace_digest`


def compute_trace_digest(trace: Sequence[Hash32]) -> Hash32:
    """Return the header's commitment to a trace list (`trace[1] .. trace[L]`, then the output entry)."""
    return tagged_hash("PoAI/trace-digest/1", *trace)


# ## Validity

# ### `compute_l_hat`


def compute_l_hat(quiz_seed: Hash32, loss: int, trace_digest: Hash32) -> int:
    """Return the number that must stay below the target: uniform in 0 .. 2^256 - 1 for whoever ran the pass.

    Args:
        quiz_seed: seed of the header core's quiz (page quiz); covers every field of the core.
        loss: sum of the scored negative log-likelihoods; bits in Q16, uint64.
        trace_digest: what `compute_trace_digest` gives.
    """
    return uint256_be(tagged_hash("PoAI/l-hat/1", quiz_seed, uint64_le(loss), trace_digest))


# ### `is_below_target`


def is_below_target(l_hat: int, target: Target) -> bool:
    """Tell whether a pass wins. A target of 2^256 - 1 is met by all but one value in 2^256."""
    return l_hat < target


# ```pycon
# >>> from poai_spec.model.loss import compute_l_hat, compute_layer_entry, compute_output_entry, compute_trace_digest
# >>> trace = [compute_layer_entry(1, [16384, -1]), compute_output_entry([(3, 9, 4)], [[127, -7]], [65536])]
# >>> [entry.hex()[:16] for entry in trace]
# ['bdc5a35afddbf0d6', 'bb3369e78839b36e']
# >>> compute_trace_digest(trace).hex()[:16]
# '27b64f97a5ac6848'
# >>> hex(compute_l_hat(bytes(32), 65536, compute_trace_digest(trace)))[:18]
# '0x153b19d345c2a8f6'


# ## Rationale

# - **Why the loss alone is not enough.** Suppose `l_hat` hashed only the seed and the loss, a number of perhaps 20 bits. A
#   miner who can narrow the loss down to k plausible values hashes these k first and runs the model only where one of
#   them would win. With p the chance that a try wins, that happens in a share of about k p of all tries, so the miner
#   gains a factor of up to 1 / (k p): for k p = 1/100 it mines as fast as a hundred honest ones. The harder the target,
#   the larger the gain.
# - **Why the trace digest ends that.** Now the miner has to guess the digest, that is every value below it: each entry of
#   the quantised rows of all positions, which depend on every layer, and the scored losses, which depend on the whole
#   head through the sum over the vocabulary. Let m be the share of head-input entries that the best cheaper pass
#   (float arithmetic, fewer bits, a layer left out) predicts exactly. If misses were independent, a whole guess would be
#   right with probability `m ^ (positions * width)`. They are not, and the assumption is generous to the miner only where
#   misses come in clusters; a pass that predicts *every* entry of a noticeable share of quizzes would break it. So the
#   whole rests on numbers, and here they are: SmolLM2-135M, 12 quizzes of 64 rows of 576 values,
#   `poai bench prescreen`.

#   | pass | m | whole rows of 768 | entries after block 1, after the later half | whole layer rows of 360 |
#   | --- | --- | --- | --- | --- |
#   | float32, the file's weights | 29.2% | 0 | 0.10%, 0.001% | 0 |
#   | float32, int8 weights | 39.8% | 0 | 0.19%, 0.011% | 0 |
#   | bfloat16 activations, int8 weights | 39.0% | 0 | 0.20%, 0.010% | 0 |
#   | 4-bit activations | 1.4% | 0 | 0.01%, 0.000% | 0 |
#   | block 18 left out | 7.4% | 0 | 0.17%, 0.005% | 0 |
#   | all roundings of the rows, float32 | 34.4% | 0 | 0.17%, 0.008% | 0 |

#   The best guess, float32 over the transformed int8 weights, hits 40% of the entries. Its misses cluster by position:
#   the quartiles of the positions' shares are 0.34, 0.41 and 0.48, and their variance is 42 times that of
#   independent entries. With each position's own share a quiz still takes 41,748 bits at least, the best row of
#   all 337, and the cheapest layer's row 4,130. No row was right as a whole, of a quiz or of a layer. The
#   last pass rounds every row as the profile does and multiplies as much as the honest one: imitating the roundings in
#   floats does not help. So a byte an entry is enough.
# - **Why an entry per layer.** One digest at the end would make a forgery cost the verifier a whole pass. With the list, a
#   replay stops at the first entry that differs: garbage costs one layer, and to waste j layers a forger has to compute
#   about j - 1 honest ones. The list also shows where two implementations part, on a live block.
# - **Why the last position only, below the head.** It attends to every other, so its row depends on all of them, and the
#   entry costs one row of hashing instead of T. The output entry covers every position.
# - **What it does not stop.** `l_hat < target` can be reached with about 1 / p hashes by inventing digests. Such a block
#   fails at the first entry; the checks before the replay and the limits on replays are on the pages
#   [work](../proof/work.md) and [fork-choice](../chain/fork-choice.md).
