# # Encoding  [generated from specs/basics/encoding.md by `poai spec compile`: edit the page]

# Status: normative, version 1.

# Every consensus object and every network message is encoded with SSZ (Simple Serialize, from Ethereum's consensus
# specifications): fixed-size fields in order, little-endian, and a 4-byte offset for each variable-size field. Only the
# serialisation is used; `hash_tree_root` is not. A container is a frozen dataclass whose fields carry their SSZ type.
# One function decodes, and one value has one encoding: what decodes is encoded again and must give the same bytes.


from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

from ssz.exceptions import SSZException
from ssz.sedes import ByteList, ByteVector, Container, List

from poai_spec.basics.notation import Malformed

T = TypeVar("T")


# ## Simple Serialize

# What these pages use of it, in full (Ethereum consensus-specs, `ssz/simple-serialize.md`):

# | type | size | encoding |
# | --- | --- | --- |
# | `uint32`, `uint64`, `uint256` | fixed | 4, 8 or 32 bytes, little-endian |
# | `boolean` | fixed | one byte, 0 or 1 |
# | `ByteVector[n]`, such as `bytes32` | fixed | its n bytes |
# | `ByteList[limit]` | variable | its bytes, at most `limit` |
# | `List[T, limit]` | variable | its items, at most `limit`, as a sequence |
# | container | fixed if all its fields are | its fields in order, as a sequence |

# A *sequence* is encoded as the heads of all its parts, in order, and then their tails. The head of a part of fixed size is
# its encoding; it has no tail. The head of a part of variable size is an offset of 4 bytes, little-endian, and its tail is
# its encoding. An offset counts from the first byte of the sequence to the part's tail. Tails follow each other in the
# order of the parts, without gaps, the first one right after the heads.

# There are no lengths: a tail ends where the next one begins, the last where its sequence ends, and the outermost value
# where the message ends. So the items of a list of fixed size are counted by dividing the length, those of a list of
# variable size by dividing the first offset by 4; an empty list has no bytes. `hash_tree_root`, unions and bit lists are
# not used; every hash of these pages is a flat one over the encoding.

# ## Fields

# `bytes20 = ByteVector[20]`, used for addresses, is the one basic type that the library does not name.


bytes20 = ByteVector(20)


# ### `ssz_field`


def ssz_field(sedes: Any, *, item: type | None = None) -> Any:
    """Declare a dataclass field with its SSZ type.

    Args:
        sedes: the SSZ type, or a container class of these pages.
        item: for a list of containers, the container class of its items.
    """
    return field(metadata={"sedes": sedes, "item": item})


# ### `get_sedes`


def get_sedes(kind: Any) -> Any:
    """Return the SSZ type of a container class (its fields in order of declaration); an SSZ type is itself."""
    if not isinstance(kind, type):
        return kind
    return Container([get_sedes(f.metadata["sedes"]) for f in fields(kind)])


# ## Encoding and decoding

# ### `to_plain`


def to_plain(value: Any) -> Any:
    """Return a container as nested tuples, the form that the SSZ library takes."""
    if isinstance(value, tuple):
        return tuple(to_plain(item) for item in value)
    if hasattr(value, "__dataclass_fields__"):
        return tuple(to_plain(getattr(value, f.name)) for f in fields(value))
    return value


# ### `from_plain`


def from_plain(kind: type[T], plain: Any) -> T:
    """Build a container of class `kind` from the SSZ library's nested sequences; lists become tuples."""
    values = zip(fields(kind), plain, strict=True)  # type: ignore[arg-type]
    return kind(*[field_from_plain(f.metadata["sedes"], f.metadata["item"], value) for f, value in values])


# ### `field_from_plain`


def field_from_plain(sedes: Any, item: type | None, value: Any) -> Any:
    """Convert one field: containers become their class, lists tuples, and byte lists bytes."""
    if isinstance(sedes, type):
        return from_plain(sedes, value)
    if isinstance(sedes, ByteList):
        return bytes(value)
    if isinstance(sedes, List):
        return tuple(from_plain(item, v) if item else field_from_plain(sedes.element_sedes, None, v) for v in value)
    return value


# ### `encode`


def encode(value: Any) -> bytes:
    """Return the SSZ serialisation of a container; the caller guarantees that every field is in range."""
    return bytes(get_sedes(type(value)).serialize(to_plain(value)))


# ### `decode`

# The library raises errors of many classes on hostile bytes, among them `AttributeError` and plain `ValueError`, and it
# does not look at the first offset of some types at all. Hence one place that turns all of them into `Malformed`, and the
# comparison with the encoding of the result. Whether a decoder stops by itself or finds out by comparing makes no
# difference: both are the same code.


def decode(kind: type[T], data: bytes) -> T:
    """Return the container of class `kind` that `data` encodes.

    Raises:
        Malformed: `encoding/undecodable`, for all bytes but those that `encode` gives for some value.
    """
    try:
        value = from_plain(kind, get_sedes(kind).deserialize(data))
        if (again := encode(value)) != data:
            raise ValueError(f"the value has another encoding, of {len(again)} bytes")
    except (SSZException, ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise Malformed("encoding/undecodable", f"{len(data)} bytes are no {kind.__name__}: {error}") from error
    return value


# ```pycon
# >>> from dataclasses import dataclass
# >>> from ssz.sedes import uint32, uint64
# >>> from poai_spec.basics.encoding import decode, encode, ssz_field
# >>> @dataclass(frozen=True)
# ... class Pair:
# ...     small: int = ssz_field(uint32)
# ...     large: int = ssz_field(uint64)
# >>> encode(Pair(1, 2)).hex()
# '010000000200000000000000'
# >>> decode(Pair, encode(Pair(1, 2)))
# Pair(small=1, large=2)
# >>> decode(Pair, b"short")
# Traceback (most recent call last):
# poai_spec.basics.notation.Malformed: encoding/undecodable: 5 bytes are no Pair: Tried to read 8. Only got 1 bytes


# ## Rejection codes

# | code | class | meaning |
# | --- | --- | --- |
# | `encoding/undecodable` | Malformed | the bytes are not the SSZ serialisation of a value of the expected type |

# ## Rationale

# - **One code for all of it.** Decoders differ in how far they read on after a fault, so two codes, one for what does not
#   decode and one for what decodes but is written differently, would depend on the library.
# - **SSZ, not JSON or RLP.** Fixed offsets, no choice in how to write a number, implementations in every language that
#   has an Ethereum client. RLP appears only inside the account trie, whose format is Ethereum's.
# - **No `hash_tree_root`.** Nothing here needs a Merkle proof into a header, and one flat hash is easier to get right.
