# # Header  [generated from specs/chain/header.md by `poai spec compile`: edit the page]

# Status: normative, version 1.

# The genesis header, and every rule that a header must pass by itself and against its ancestors, without body, trace,
# state or model. A node that fetches headers first applies exactly these. The order of all rules, and the reason for each
# one's class, are on the page [block](block.md).


from poai_spec.chain.body import EMPTY_BODY_ROOT, check_body_is_empty
from poai_spec.basics.containers import Header, HeaderCore, compute_block_hash
from poai_spec.proof.difficulty import Chain, check_period_forward, check_target, compute_median_time
from poai_spec.basics.notation import Invalid, Milliseconds, NotYet
from poai_spec.basics.parameters import PROTOCOL_VERSION, Config, compute_network_id
from poai_spec.execution.trie import EMPTY_TRIE_ROOT
from poai_spec.chain.upgrades import Rules
from poai_spec.proof.work import check_l_hat


# ## Genesis

# ### `make_genesis_header`


def make_genesis_header(config: Config) -> Header:
    """Return the header of block 0: computed from the config, never received; no quiz, no subsidy, no work."""
    core = HeaderCore(
        version=PROTOCOL_VERSION,
        height=0,
        parent_hash=compute_network_id(config),
        timestamp=config.genesis_timestamp,
        target=config.initial_target,
        miner=bytes(20),
        body_root=EMPTY_BODY_ROOT,
        state_root=EMPTY_TRIE_ROOT,
        nonce=0,
    )
    return Header(core=core, loss=0, trace_digest=bytes(32))


# ## Rules

# ### `check_header_alone`

# What needs no ancestors; also applied to a header whose parent is unknown.


def check_header_alone(header: Header) -> None:
    """Apply the rules that look at the header alone.

    Raises:
        Invalid: `header/version`, `body/transactions-not-active`.
    """
    check_version(header.core)
    check_body_is_empty(header.core)


# ### `check_header_in_chain`


def check_header_in_chain(header: Header, chain: Chain, rules: Rules, now: Milliseconds) -> None:
    """Apply the rules that compare a header with its ancestors and the clock.

    Args:
        header: passed `check_header_alone`.
        chain: all ancestors, genesis first; each passed these rules itself.
        rules: those of the height above `chain`.
        now: the local clock, ms since 1970.

    Raises:
        Invalid: `header/parent`, `header/height`, `difficulty/target`, `header/median-time`,
            `difficulty/period-not-forward`, `work/l-hat`.
        NotYet: `header/future`.
    """
    check_parent(header.core, chain)
    check_height(header.core, chain)
    check_target(header.core, chain, rules)
    check_median_time(header.core, chain)
    check_period_forward(header.core, chain, rules)
    check_l_hat(header, chain, rules)
    check_future(header.core, rules, now)


# ### `check_version`


def check_version(core: HeaderCore) -> None:
    """Refuse a version that this specification does not define.

    Raises:
        Invalid: `header/version`.
    """
    if core.version != PROTOCOL_VERSION:
        raise Invalid("header/version", f"version {core.version}; only {PROTOCOL_VERSION} exists")


# ### `check_parent`


def check_parent(core: HeaderCore, chain: Chain) -> None:
    """Refuse a header that stands on another parent than the one it is compared with.

    Raises:
        Invalid: `header/parent`.
    """
    parent = compute_block_hash(chain[len(chain) - 1])
    if core.parent_hash != parent:
        raise Invalid("header/parent", f"parent {core.parent_hash.hex()}, not {parent.hex()}")


# ### `check_height`


def check_height(core: HeaderCore, chain: Chain) -> None:
    """Refuse a height that is not the parent's + 1.

    Raises:
        Invalid: `header/height`.
    """
    if core.height != len(chain):
        raise Invalid("header/height", f"height {core.height} on a parent of height {len(chain) - 1}")


# ### `check_median_time`

# Ancestors are counted back from the parent: the block at height h has min(11, h) of them in the window. Block 1 has
# genesis alone, block 2 genesis and block 1, of which the later stamp is the median.


def check_median_time(core: HeaderCore, chain: Chain) -> None:
    """Refuse a stamp that is not above the median stamp of the last ancestors.

    Raises:
        Invalid: `header/median-time`.
    """
    median = compute_median_time(chain)
    if core.timestamp <= median:
        raise Invalid("header/median-time", f"stamp {core.timestamp} is not above the median {median}")


# ### `check_future`


def check_future(core: HeaderCore, rules: Rules, now: Milliseconds) -> None:
    """Put off a header whose stamp is more than `max_future` ahead of the local clock.

    Raises:
        NotYet: `header/future`.
    """
    if core.timestamp > now + rules.max_future:
        raise NotYet("header/future", f"stamp {core.timestamp} is over {rules.max_future} ms ahead of {now}")


# ## Rejection codes

# | code | class | meaning |
# | --- | --- | --- |
# | `header/version` | Invalid | not version 1 |
# | `header/parent` | Invalid | the block before it in a chain is not its parent; a store never sees this |
# | `header/height` | Invalid | not the parent's height + 1 |
# | `header/median-time` | Invalid | not above the median stamp of the last min(11, height) ancestors |
# | `header/future` | NotYet | too far ahead of this node's clock; resubmit it when the clock has come near |

# ## Rationale

# - **Why a stamp from the future is not invalid.** The clock is not part of the chain: two honest nodes may disagree, and
#   a rule that marks the hash would split them for good. The block is dropped, nobody is blamed, and its sender or any
#   other may send it again.
# - **Why the clock is asked last.** Every rule before it is permanent and costs a few hashes at most. In another order a
#   header without work could hide behind a stamp from the future, and be offered again and again without blame.
# - **Why the median, not the parent's stamp.** One stamp ahead of time would force all that follow ahead, too.
# - **Block 2's window is even**; the upper median makes the rule stricter and keeps heights 1 and 2 strictly increasing.
