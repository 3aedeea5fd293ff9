# # The llama.cpp profile  [generated from specs/model/llama-profile.md by `poai spec compile`: edit the page]

# Status: normative, version 1.

# **For private networks of equal machines only.** A network whose config says `llama.cpp` instead of `w8a8` takes its
# logits from llama.cpp, in floating point. They are rounded to integers once, at the end, and scored by the same function;
# every other rule is the same. Nothing makes two machines agree on them: the order of additions, the width of the vector
# registers and the compiler are part of a floating-point result. Nodes that differ in one of them reject each other's
# blocks. [What changes the bits](#what-changes-the-bits) has the measurements. The profile serves as the float reading
# that the integers of the page [inference](inference.md) are measured against.


from collections.abc import Sequence

from poai_spec.model.engine import Evaluation
from poai_spec.model.fixed_point import clamp, div_round
from poai_spec.model.inference import compute_nll
from poai_spec.basics.notation import Hash32, Invalid, tagged_hash
from poai_spec.model.weights import Float32


# ## Constants

# | name | value | why |
# | --- | --- | --- |
# | `LLAMA_PROFILE` | `llama.cpp` | the config's `profile` |
# | `LLAMA_VERSION` | 0.3.36 | of llama-cpp-python; another one is another profile, since its kernels may differ |
# | `LLAMA_TRACE_ENTRIES` | 1 | llama.cpp gives no residual rows; one entry covers the logits |


LLAMA_PROFILE = b"llama.cpp"
LLAMA_VERSION = "0.3.36"
LLAMA_TRACE_ENTRIES = 1


# ## Settings

# What llama.cpp lets a caller choose is fixed:

# | setting of `llama_model_params`, `llama_context_params`, `llama_batch` | value |
# | --- | --- |
# | `n_ctx`, `n_batch`, `n_ubatch` | the length of the sequence: one graph, all positions together |
# | `n_seq_max`, `kv_unified` | 1, false: one sequence at a time, the key and value cache cleared before it |
# | `flash_attn_type` | disabled |
# | `type_k`, `type_v` | F16 |
# | `use_extra_bufts` | false: weights stay as they lie in the file |
# | `load_mode` | none: read into memory, not mapped |
# | `n_threads`, `n_threads_batch` | 1, or the same number on every node of the network |
# | `n_gpu_layers` | 0, or the same number on every node of the network, with equal GPUs |
# | `offload_kqv`, `op_offload` | true where `n_gpu_layers` is not 0; false |
# | `logits` | asked for at the positions before scored tokens, and no others |
# | all others | the library's defaults |

# The config has no field for threads and GPU layers; whoever starts such a network tells the others. The model is the file
# itself: a node compares its SHA-256 with the manifest's and takes the manifest's `integer_model_root` as it stands, since
# the file decides it. `layer_count` and `vocabulary_size` are the file's, as in the other profile.

# ## From floats to integers

# ### `round_logit`


def round_logit(bits: int) -> int:
    """Return a logit in Q16, int32: the exact value times 2^16 rounded to nearest, halves up; too large ones saturate.

    Args:
        bits: the float32's bit pattern, uint32.

    Raises:
        Invalid: `llama-profile/nan`.
    """
    if bits & 0x7FFFFFFF > 0x7F800000:
        raise Invalid("llama-profile/nan", f"logit {bits:#010x} is not a number")
    if bits & 0x7FFFFFFF == 0x7F800000:
        return -(2**31) if bits >> 31 else 2**31 - 1
    numerator, denominator = Float32(bits).as_ratio()
    return clamp(div_round(numerator << 16, denominator), 31)


# ### `compute_logits_entry`


def compute_logits_entry(rows: Sequence[bytes]) -> Hash32:
    """Return the only trace entry: the logits that score, as llama.cpp gave them, before any rounding.

    Args:
        rows: for each scored position in ascending order the V logits of the position before it, float32 little-endian,
            4 V bytes.
    """
    return tagged_hash("PoAI/trace-logits/1", *rows)


# ### `score_logits`


def score_logits(rows: Sequence[bytes], targets: Sequence[int]) -> Evaluation:
    """Return what a pass gives, from its logits: `compute_nll` of the rounded rows, and the trace of one entry.

    Args:
        rows: as for `compute_logits_entry`.
        targets: the scored tokens, one a row.

    Raises:
        Invalid: `llama-profile/nan`.
    """
    nlls = []
    for row, target in zip(rows, targets, strict=True):
        logits = [round_logit(int.from_bytes(row[at : at + 4], "little")) for at in range(0, len(row), 4)]
        nlls.append(compute_nll(tuple(logits), target))
    return Evaluation(tuple(nlls), (compute_logits_entry(rows),))


# ```pycon
# >>> from poai_spec.model.llama_profile import round_logit, score_logits
# >>> round_logit(0x3F800000), round_logit(0xBF800000), round_logit(0x37000000), round_logit(0xFF800000)
# (65536, -65536, 1, -2147483648)
# >>> score_logits([bytes(8)], [0]).nlls
# (65536,)


# ## What changes the bits

# Twenty quizzes of 64 tokens, run with the settings above and then with one thing changed: how many of the twenty get
# other bits, and the largest difference of a loss, in bits. Where the bits differ the loss, in Q16, differed too.
# `poai bench llama-bits` makes the table; llama-cpp-python 0.3.36 with GCC 12.2, an x86-64 processor with AVX-512,
# two cores.

# | changed | mini: other bits | largest loss | SmolLM2: other bits | largest loss |
# | --- | --- | --- | --- | --- |
# | nothing: run again | 0 | | 0 | |
# | build for AVX2, same compiler, same machine | 3 | 0.04 | 20 | 0.63 |
# | flash attention | 20 | 0.25 | 20 | 0.57 |
# | key and value cache in F32 | 20 | 0.37 | 20 | 0.69 |
# | one position a graph | 6 | 0.13 | 20 | 0.66 |
# | at most 7 positions a graph | 1 | 0.05 | 0 | |
# | weights repacked for the processor (`use_extra_bufts`) | 4 | 0.07 | 0 | |
# | at most 32 positions a graph | 0 | | 0 | |
# | 2, 3 or 8 threads | 0 | | 0 | |
# | 2 or 4 quizzes in a batch | 0 | | 0 | |
# | file mapped into memory | 0 | | 0 | |
# | logits of all positions | 0 | | 0 | |
# | another version, compiler, C library, make of processor, or a GPU | unmeasured | | unmeasured | |

# A zero is what was seen, not a promise. The second line is the reason for the warning at the top: two builds of the same
# source, on the same machine, disagree about every quiz of SmolLM2, and a loss differs by half a bit, not by a rounding
# in the last place. `poai bench llama-bits --json FILE` on one
# machine and `--compare FILE` on another show whether the two can be on one network.

# ## Rejection codes

# | code | class | meaning |
# | --- | --- | --- |
# | `llama-profile/nan` | Invalid | a scored logit is not a number: the quiz has no loss, so no block of it is valid; found by the replay |

# ## Rationale

# - **Why hash the floats and not the rounded logits?** Whoever agrees on the floats agrees on all that follows; a
#   difference in the last bit shows at once, not when it happens to cross a rounding.
# - **Why all logits of a row?** The loss depends on all of them, but only through a sum. The entry makes every value of
#   the head count, as the output entry of the page [loss](loss.md) does.
# - **What one entry costs.** A false block costs its verifier a whole pass, not a layer. On a private network nobody
#   forges.
