# # Deterministic random bits  [generated from specs/basics/drbg.md by `poai spec compile`: edit the page]

# Status: normative, version 1.

# Quizzes are drawn, not computed: families, operands, words and salt tokens. All draws come from one generator, which
# turns a 32-byte seed into an endless stream of uniform integers, the same one on every machine. It is Keccak in counter
# mode: nobody can predict the stream without the seed, and nobody can choose a seed for a stream that suits them. The
# standard libraries' generators are no substitute; they differ between languages and even between versions of one.


from collections.abc import Sequence
from typing import TypeVar

from poai_spec.basics.notation import Hash32, tagged_hash, uint64_le

T = TypeVar("T")


# ## The stream

# Block i (i = 0, 1, 2, ...) is the 32 bytes `tagged_hash("PoAI/drbg/1", seed, uint64_le(i))`. The blocks are read as
# consecutive 8-byte little-endian integers, so each gives four numbers of 64 bits. Nothing is skipped or read twice; a
# value that rejection (below) throws away is consumed.

# | constant | value | unit | why |
# | --- | --- | --- | --- |
# | `WORD_BYTES` | 8 | bytes | one draw: wide enough that rejection is rare, small enough for every language's integers |


WORD_BYTES = 8


# ### `Drbg`

# The methods below are its whole interface. A generator has a state (the position in the stream), so the order of calls
# matters, and every page that draws states that order by the order of its lines.


class Drbg:
    """A stream of uniform integers, decided by its seed.

    Attributes:
        seed: 32 bytes.
        block_index: number of blocks made so far, which is the index of the next one.
        words: the numbers of the last block that have not been consumed, the next one last.
    """

    def __init__(self, seed: Hash32) -> None:
        self.seed = seed
        self.block_index = 0
        self.words: list[int] = []

    def next_uint64(self) -> int:
        """Return the next number of the stream, uniform in 0 .. 2^64 - 1."""
        if not self.words:
            block = tagged_hash("PoAI/drbg/1", self.seed, uint64_le(self.block_index))
            self.block_index += 1
            starts = range(0, len(block), WORD_BYTES)
            self.words = [int.from_bytes(block[i : i + WORD_BYTES], "little") for i in reversed(starts)]
        return self.words.pop()

    def below(self, n: int) -> int:
        """Return a number that is exactly uniform in 0 .. n - 1, for n in 1 .. 2^64.

        At least one number of the stream is consumed, for n = 1 too.
        """
        assert 1 <= n <= 2**64, f"below({n})"
        limit = 2**64 - 2**64 % n
        while (x := self.next_uint64()) >= limit:
            pass
        return x % n

    def between(self, low: int, high: int) -> int:
        """Return a uniform number in low .. high, both included."""
        return low + self.below(high - low + 1)

    def choice(self, items: Sequence[T]) -> T:
        """Return one item; every place of the sequence is equally likely."""
        return items[self.below(len(items))]

    def sample(self, items: Sequence[T], k: int) -> list[T]:
        """Return the items of k distinct places in random order; every ordered selection is equally likely.

        Fisher and Yates, upwards: place i is exchanged with a place drawn from i .. len(items) - 1. Consumes k draws.
        """
        pool = list(items)
        for i in range(k):
            j = self.between(i, len(pool) - 1)
            pool[i], pool[j] = pool[j], pool[i]
        return pool[:k]

    def shuffled(self, items: Sequence[T]) -> list[T]:
        """Return all items in random order: `sample` of every place, its last draw (`below(1)`) included."""
        return self.sample(items, len(items))


# ```pycon
# >>> from poai_spec.basics.drbg import Drbg
# >>> drbg = Drbg(bytes(32))
# >>> [drbg.next_uint64() for _ in range(2)]
# [685491906791479349, 2303048122372909953]
# >>> drbg = Drbg(bytes(32))
# >>> [drbg.below(6) + 1 for _ in range(10)]
# [6, 4, 1, 5, 1, 5, 4, 4, 1, 5]
# >>> Drbg(bytes(32)).sample("abcdef", 3)
# ['f', 'e', 'c']
# >>> Drbg(bytes(32)).shuffled("abcdef")
# ['f', 'e', 'c', 'b', 'd', 'a']


# ## Rationale

# - **Rejection, not a bare remainder.** `x mod n` favours small results whenever n does not divide 2^64. The bias is tiny
#   for small n, but "tiny" must be argued again for every use, and exact uniformity costs one comparison: the chance that
#   a draw is thrown away is below n / 2^64.
# - **One draw for n = 1.** The number of draws then depends on no special case, and an implementation that short-cuts
#   n = 1 is caught by the first shuffle.
# - **A counter, not a chain of hashes.** Any block can be made without the ones before it, which helps whoever debugs two
#   implementations that diverge.
# - **Order of Fisher and Yates.** Either direction shuffles well, but only one gives these results; upwards, a sample of
#   k is the beginning of a shuffle.
