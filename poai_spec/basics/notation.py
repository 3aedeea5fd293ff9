# # Notation, errors and hashing  [generated from specs/basics/notation.md by `poai spec compile`: edit the page]

# Status: normative, version 1.

# This page fixes what every other page uses: how integers and hashes are written, which hash function there is, and how
# a rule says that it was broken. Code blocks marked `python` are normative; together they are the package `poai_spec`,
# one module a page with the same line numbers. Prose explains; where prose and code disagree, the code decides and the
# prose is a defect to report.

# Everything is integers. `//` is floor division and `>>` the arithmetic shift, both rounding toward minus infinity
# (C, Go, Rust and JavaScript truncate `/`: adjust there). Byte order is little-endian unless said otherwise. `a || b`
# in prose means concatenation. "MUST" and "MUST NOT" are used as in RFC 2119.


from typing import TypeAlias

from Crypto.Hash import keccak


# ## Types


Hash32: TypeAlias = bytes  # 32 bytes, a Keccak-256 digest
Address: TypeAlias = bytes  # 20 bytes, an Ethereum-style account address
Milliseconds: TypeAlias = int  # time since 1970-01-01T00:00:00Z, or a span, in milliseconds
Height: TypeAlias = int  # distance from genesis in blocks; genesis has 0
Target: TypeAlias = int  # 1 .. 2^256 - 1; lower is harder
Work: TypeAlias = int  # expected number of multiplications behind something
Wei: TypeAlias = int  # 10^-18 POAI


# ## Errors

# One class a consequence, one code a rule. A code is the literal `"page/rule"`; it is raised in exactly one place of
# these pages, so a code leads to its line. `assert` appears only where a failure would mean that the specification itself
# is wrong. Any other exception that escapes on peer data is a defect of the implementation.

# ### `SpecError`


class SpecError(Exception):
    """A rule was broken; the subclass says what follows.

    Attributes:
        code: the rule, as `page/rule`; stable, compared by the conformance vectors.
        detail: the values that broke it, for people; not normative.
    """

    def __init__(self, code: str, detail: str = "") -> None:
        super().__init__(f"{code}: {detail}" if detail else code)
        self.code = code
        self.detail = detail


# ### `Invalid`

# The header and its ancestors decide that this object can never be valid. Remember its hash as invalid, blame the sender.


class Invalid(SpecError):
    """Never valid: mark the hash, reject everything built on it, penalise the sender."""


# ### `Malformed`

# The bytes are not a well-formed message: they do not decode, or a body or trace is not the one that its header commits
# to. Blame the sender and remember nothing: another sender may hold the right bytes for the same header. A node that
# marks the hash here can be made to refuse an honest block by anyone who attaches a wrong body to it (CVE-2012-2459).


class Malformed(SpecError):
    """Not a well-formed message: penalise the sender, mark nothing."""


# ### `NotYet`


class NotYet(SpecError):
    """May become valid later (unknown parent, clock, lighter branch): keep or drop it, penalise nobody."""


# ## Hashing

# Every hash of the chain is Keccak-256 with Ethereum's padding (`0x01`, not SHA-3's `0x06`). Apart from the epoch key (page
# [epoch](../proof/epoch.md)) and Ethereum's account trie (page [state](../execution/state.md)) every hash begins with the 32-byte Keccak of its
# tag's name. The Keccaks of tags have equal length, so none is
# a prefix of another, and a value hashed for one purpose cannot be read as another's (BIP-340 uses the same idea).

# ### `keccak256`


def keccak256(data: bytes) -> Hash32:
    """Return the 32-byte Keccak-256 digest of `data`.

    Reference: Bertoni et al., The Keccak reference, version 3.0; Ethereum yellow paper, appendix A.
    """
    return keccak.new(digest_bits=256, data=data).digest()


# ### `tagged_hash`


def tagged_hash(tag: str, *parts: bytes) -> Hash32:
    """Return `Keccak(Keccak(tag) || parts[0] || parts[1] || ...)`; `tag` is ASCII, such as `PoAI/quiz/1`."""
    return keccak256(keccak256(tag.encode("ascii")) + b"".join(parts))


# ```pycon
# >>> from poai_spec.basics.notation import keccak256, tagged_hash
# >>> keccak256(b"").hex()
# 'c5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470'
# >>> tagged_hash("PoAI/quiz/1", b"") == keccak256(keccak256(b"PoAI/quiz/1"))
# True


# ## Integers as bytes

# ### `uint32_le`


def uint32_le(value: int) -> bytes:
    """Return `value` (0 .. 2^32 - 1) as 4 bytes, little-endian."""
    return value.to_bytes(4, "little")


# ### `uint64_le`


def uint64_le(value: int) -> bytes:
    """Return `value` (0 .. 2^64 - 1) as 8 bytes, little-endian."""
    return value.to_bytes(8, "little")


# ### `int32_le`


def int32_le(values: "list[int] | tuple[int, ...]") -> bytes:
    """Return signed 32-bit integers as 4 bytes each, two's complement, little-endian."""
    return b"".join(value.to_bytes(4, "little", signed=True) for value in values)


# ### `int8_bytes`


def int8_bytes(values: "list[int] | tuple[int, ...]") -> bytes:
    """Return signed 8-bit integers as a byte each, two's complement."""
    return b"".join(value.to_bytes(1, "little", signed=True) for value in values)


# ### `uint256_be`


def uint256_be(data: Hash32) -> int:
    """Read a 32-byte digest as an integer, big-endian: how a digest is compared with a target."""
    return int.from_bytes(data, "big")


# ## Rationale

# - **Keccak, not SHA-256.** Accounts, addresses and the state trie have Ethereum's shape so that an EVM can be added
#   without a new state format; one hash function is enough for everything.
# - **Exceptions, not booleans or `assert`.** A rejected block without its reason hides a test that passes for the wrong
#   one, and `assert` vanishes under `python -O`.
