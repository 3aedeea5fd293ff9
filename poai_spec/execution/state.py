# # State  [generated from specs/execution/state.md by `poai spec compile`: edit the page]

# Status: normative, version 1.

# Who owns what: a map from addresses to accounts, and the root that a header commits to. Accounts have Ethereum's shape
# and lie in Ethereum's Merkle-Patricia trie (page [trie](trie.md)), so that a virtual machine can be added without a new state format. In
# version 1 only balances change, and only by the subsidy.


from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TypeAlias

import rlp

from poai_spec.basics.containers import HeaderCore
from poai_spec.proof.economics import compute_subsidy
from poai_spec.basics.notation import Address, Hash32, Invalid, Wei, keccak256
from poai_spec.execution.trie import EMPTY_TRIE_ROOT, compute_trie_root


# ## Constants

# | name | value | why |
# | --- | --- | --- |
# | `EMPTY_CODE_HASH` | `keccak256(b"")`, `c5d24601...a470` | hash of no code; every account's code hash |


EMPTY_CODE_HASH: Hash32 = keccak256(b"")


# ## Types

# ### `Account`


@dataclass(frozen=True)
class Account:
    """An account; the default is one that nothing has touched yet.

    Attributes:
        nonce: transactions sent; 0 in version 1.
        balance: wei.
        storage_root: root of the account's storage trie; `EMPTY_TRIE_ROOT` in version 1.
        code_hash: Keccak-256 of its code; `EMPTY_CODE_HASH` in version 1.
    """

    nonce: int = 0
    balance: Wei = 0
    storage_root: Hash32 = EMPTY_TRIE_ROOT
    code_hash: Hash32 = EMPTY_CODE_HASH


# A state holds the accounts that were touched. It is never changed in place: functions return a new one.


State: TypeAlias = Mapping[Address, Account]


# ## Functions

# ### `encode_account`


def encode_account(account: Account) -> bytes:
    """Return `rlp([nonce, balance, storage_root, code_hash])`, integers big-endian without leading zeros.

    Reference: Ethereum yellow paper, section 4.1 and appendix B.
    """
    fields = [account.nonce, account.balance, account.storage_root, account.code_hash]
    return bytes(rlp.encode(fields))


# ### `compute_state_root`


def compute_state_root(state: State) -> Hash32:
    """Return the root of the trie that maps `keccak256(address)` to the account's encoding.

    Reference: Ethereum yellow paper, section 4.1.
    """
    return compute_trie_root({keccak256(address): encode_account(account) for address, account in state.items()})


# ```pycon
# >>> from poai_spec.execution.state import Account, compute_state_root
# >>> from poai_spec.execution.trie import EMPTY_TRIE_ROOT
# >>> compute_state_root({}) == EMPTY_TRIE_ROOT
# True
# >>> EMPTY_TRIE_ROOT.hex()
# '56e81f171bcc55a6ff8345e692c0f86e5b48e01b996cadc001622fb5e363b421'
# >>> compute_state_root({bytes(20): Account(balance=5 * 10**18)}).hex()
# '8ccdf2379bbcc6e7d3e67b0069cb36631eac79e9ba5d37ed044933a27cac5089'


# Three accounts whose hashed addresses begin with 53, 421 and 42b: the root is a branch, with a leaf at 5 and, at 4, an
# extension by the nibble 2 to a branch with a leaf at 1 and one at b.

# ```pycon
# >>> from poai_spec.basics.notation import keccak256
# >>> three = {bytes(19) + bytes([n]): Account(balance=(n + 1) * 10**18) for n in (0, 5, 15)}
# >>> [keccak256(address).hex()[:3] for address in three]
# ['538', '421', '42b']
# >>> compute_state_root(three).hex()
# 'e3f2c26cbfa9c2b897141e26fdf1db62b7fcecda059f9d5627ea3a896666a620'


# ### `process_credit`


def process_credit(state: State, address: Address, amount: Wei) -> State:
    """Return the state after `amount` was added to an account; a zero amount touches none."""
    if amount == 0:
        return state
    account = state.get(address, Account())
    return {**state, address: replace(account, balance=account.balance + amount)}


# ### `process_header`


def process_header(state: State, core: HeaderCore) -> State:
    """Return the state after a block: its miner has been credited with the subsidy."""
    return process_credit(state, core.miner, compute_subsidy(core.height))


# ### `check_state_root`


def check_state_root(state: State, core: HeaderCore) -> None:
    """Refuse a header that commits to another state than the one after it, `state`.

    Raises:
        Invalid: `state/root`.
    """
    root = compute_state_root(state)
    if core.state_root != root:
        raise Invalid("state/root", f"block {core.height} has {core.state_root.hex()}, its chain gives {root.hex()}")


# ## Rejection codes

# | code | class | meaning |
# | --- | --- | --- |
# | `state/root` | Invalid | not the root of the state after this block; header and ancestors decide it |

# ## Rationale

# - **Keys are hashed.** An attacker who may choose addresses cannot make the trie deep.
# - **The zero address is an account like any other.** A miner who names it loses the money.
