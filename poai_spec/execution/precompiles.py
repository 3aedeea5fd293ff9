# # Precompiles  [generated from specs/execution/precompiles.md by `poai spec compile`: edit the page]

# Status: normative, version 1.

# Not active yet: no block of version 1 holds a transaction, and no rule of a block uses this page.

# Addresses at which a function of this specification answers instead of code: what contracts need and could only do at great
# cost. `ecrecover` tells who signed a hash, three more are hashes and a copy, the last raises to a power.


from collections.abc import Callable, Mapping
from hashlib import sha256

from coincurve import PublicKey
from Crypto.Hash import RIPEMD160

from poai_spec.execution.evm import PRECOMPILE_ABSENT, Frame, Halt, Input, use_gas
from poai_spec.execution.gas import count_words
from poai_spec.basics.notation import Address, Hash32, keccak256


# ## Constants


CURVE_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141  # of secp256k1 (SEC 2)
GAS_ECRECOVER = 3000
GAS_SHA256, GAS_SHA256_WORD = 60, 12
GAS_RIPEMD160, GAS_RIPEMD160_WORD = 600, 120
GAS_IDENTITY, GAS_IDENTITY_WORD = 15, 3
GAS_MODEXP = 200  # at least


# ## Functions

# ### `recover_address`

# A signature is over the 32-byte hash itself; the address is the last 20 bytes of the Keccak of the public key.


def recover_address(message_hash: Hash32, y_parity: int, r: int, s: int) -> Address | None:
    """Return who signed a hash; None where no key could have made this signature.

    Args:
        message_hash: that was signed.
        y_parity: 0 or 1, of the point that `r` is the abscissa of.
        r: of the signature, as `s` 1 .. `CURVE_ORDER` - 1.
        s: see `r`.

    Reference: SEC 1, 4.1.6; Ethereum yellow paper, appendix F.
    """
    if not (y_parity in (0, 1) and 0 < r < CURVE_ORDER and 0 < s < CURVE_ORDER):
        return None
    signature = r.to_bytes(32, "big") + s.to_bytes(32, "big") + bytes([y_parity])
    try:
        key = PublicKey.from_signature_and_message(signature, message_hash, hasher=None)
    except ValueError:
        return None
    return keccak256(key.format(compressed=False)[1:])[12:]


# ### `run_ecrecover`


def run_ecrecover(frame: Frame) -> bytes:
    """Return the address that signed, as a word; nothing where the signature is no good.

    Raises:
        Halt: the gas does not suffice.
    """
    use_gas(frame, GAS_ECRECOVER)
    data = frame.data.read(0, 128).ljust(128, b"\0")
    v, r, s = (int.from_bytes(data[at : at + 32], "big") for at in (32, 64, 96))
    address = recover_address(data[:32], v - 27, r, s)
    return b"" if address is None else address.rjust(32, b"\0")


# ### `run_sha256`


def run_sha256(frame: Frame) -> bytes:
    """Return the SHA-256 of the input.

    Raises:
        Halt: the gas does not suffice.
    """
    use_gas(frame, GAS_SHA256 + GAS_SHA256_WORD * count_words(frame.data.size))
    return sha256(frame.data.read(0, frame.data.size)).digest()


# ### `run_ripemd160`


def run_ripemd160(frame: Frame) -> bytes:
    """Return the RIPEMD-160 of the input, as a word.

    Raises:
        Halt: the gas does not suffice.
    """
    use_gas(frame, GAS_RIPEMD160 + GAS_RIPEMD160_WORD * count_words(frame.data.size))
    return RIPEMD160.new(frame.data.read(0, frame.data.size)).digest().rjust(32, b"\0")


# ### `run_identity`


def run_identity(frame: Frame) -> bytes:
    """Return the input.

    Raises:
        Halt: the gas does not suffice.
    """
    use_gas(frame, GAS_IDENTITY + GAS_IDENTITY_WORD * count_words(frame.data.size))
    return frame.data.read(0, frame.data.size)


# ### `compute_modexp_gas`

# Lengths are words, so the price is found from them alone, and paid, before a number is read.


def compute_modexp_gas(data: Input, base_size: int, exponent_size: int, modulus_size: int) -> int:
    """Return the price of a power (EIP-2565).

    Args:
        data: the input.
        base_size: bytes of the base, as the other two from the input's first three words.
        exponent_size: of the exponent.
        modulus_size: of the modulus.
    """
    words = (max(base_size, modulus_size) + 7) // 8
    head = take_number(data, 96 + base_size, min(exponent_size, 32))
    rounds = max(head.bit_length() - 1, 0) + 8 * max(exponent_size - 32, 0)
    return max(GAS_MODEXP, words * words * max(rounds, 1) // 3)


# ### `take_number`


def take_number(data: Input, start: int, size: int) -> int:
    """Return the integer in `size` bytes of an input from `start` on, big-endian, zeros beyond its end."""
    return int.from_bytes(data.read(start, size).ljust(size, b"\0"), "big")


# ### `run_modexp`


def run_modexp(frame: Frame) -> bytes:
    """Return base^exponent modulo a modulus, in as many bytes as the modulus has; zeros for a modulus of 0.

    Raises:
        Halt: the gas does not suffice.
    """
    data = frame.data
    base_size, exponent_size, modulus_size = (take_number(data, at, 32) for at in (0, 32, 64))
    use_gas(frame, compute_modexp_gas(data, base_size, exponent_size, modulus_size))
    if modulus_size == 0:
        return b""
    base = take_number(data, 96, base_size)
    exponent = take_number(data, 96 + base_size, exponent_size)
    modulus = take_number(data, 96 + base_size + exponent_size, modulus_size)
    return (pow(base, exponent, modulus) if modulus else 0).to_bytes(modulus_size, "big")


# ### `refuse`

# As accounts without code these would succeed and return nothing, and a contract that checks a proof through them would
# accept any.


def refuse(frame: Frame) -> bytes:
    """Stand for a precompile of Ethereum that this chain does not have.

    Raises:
        Halt: always; the call fails and its gas is gone.
    """
    raise Halt(PRECOMPILE_ABSENT)


# ## Addresses

# | address | function |
# | --- | --- |
# | 1 .. 5 | `ecrecover`, SHA-256, RIPEMD-160, identity, modular power |
# | 6 .. 10 | elliptic curve of BN-254, BLAKE2, KZG: refused; see below |


PRECOMPILES: Mapping[Address, Callable[[Frame], bytes]] = {
    number.to_bytes(20, "big"): run
    for number, run in enumerate(
        [run_ecrecover, run_sha256, run_ripemd160, run_identity, run_modexp, *[refuse] * 5], start=1
    )
}


# ## Rationale

# - **6 to 10 fail** because in Python a block full of pairings would take minutes. A call to them costs all gas that it was
#   given, so nobody can mistake it for a success.
# - **The modular power reads its exponent after it was paid for**: its length may be 2^256 - 1.
