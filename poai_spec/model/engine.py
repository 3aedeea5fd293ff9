# # Engine  [generated from specs/model/engine.md by `poai spec compile`: edit the page]

# Status: normative, version 1.

# An engine runs the forward pass. These pages contain one (the functions of [inference](inference.md) on Python
# integers); implementations bring faster ones. Whatever the engine, equal tokens give equal bits. The protocol below is
# the only thing that the rest of the specification knows about engines.


from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from poai_spec.basics.notation import Hash32


# ## Types

# ### `Evaluation`


@dataclass(frozen=True)
class Evaluation:
    """What a forward pass over one quiz gives.

    Attributes:
        nlls: negative log-likelihood of each scored token, in order of position; bits in Q16, uint64.
        trace: trace[0 .. L-1], the digest after each block, and the output digest; L + 1 entries (in the profile
            `llama.cpp` one entry, page llama-profile).
    """

    nlls: tuple[int, ...]
    trace: tuple[Hash32, ...]

    @property
    def loss(self) -> int:
        """Sum of the scored negative log-likelihoods, bits in Q16."""
        return sum(self.nlls)


# ### `Engine`


class Engine(Protocol):
    """A model that is loaded and ready to run.

    Attributes:
        profile: the arithmetic, `w8a8` or `llama.cpp`.
        integer_model_root: what the integers that this engine computes with hash to (`compute_integer_model_root`). It
            comes from them and never from a manifest, or `check_engine` would compare the manifest with itself.
        layer_count: number of transformer blocks L.
    """

    @property
    def profile(self) -> bytes: ...

    @property
    def integer_model_root(self) -> Hash32: ...

    @property
    def layer_count(self) -> int: ...

    def evaluate(self, tokens: Sequence[Sequence[int]], scored: Sequence[Sequence[int]]) -> list[Evaluation]:
        """Run a batch of sequences of equal length.

        Args:
            tokens: token ids, B sequences of T.
            scored: for each sequence the ascending positions t >= 1 whose token is scored (from the logits at t - 1).

        Returns:
            One evaluation a sequence; none depends on the others.
        """
        ...

    def steps(self, tokens: Sequence[int], scored: Sequence[int]) -> Iterator[Hash32 | Evaluation]:
        """Run one sequence and yield each layer's trace entry as soon as it is known, the whole evaluation last.

        A verifier that stops after a false entry pays for no further layer.
        """
        ...


# ## Rationale

# `evaluate` is for miners and for sync, where many quizzes run at once; `steps` is for gossip, where a forged block must
# cost as little as possible. An engine may implement either by the other.
