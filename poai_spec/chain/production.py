# # Production  [generated from specs/chain/production.md by `poai spec compile`: edit the page]

# Status: normative, version 1.

# The next block, seen by whoever makes it: the core to begin with, and the block that a forward pass completes. Every rule
# that a maker has to meet is met here and nowhere else, so a miner, a test and a bench build the same thing. Which miner
# to pay, which stamp within the limits and which nonces to try are his own choice.


from dataclasses import replace

from poai_spec.chain.body import EMPTY_BODY, EMPTY_BODY_ROOT
from poai_spec.basics.containers import Block, Header, HeaderCore, compute_block_hash
from poai_spec.proof.difficulty import Chain, compute_median_time, compute_target
from poai_spec.model.engine import Evaluation
from poai_spec.model.loss import compute_trace_digest
from poai_spec.basics.notation import Address, Milliseconds
from poai_spec.basics.parameters import PROTOCOL_VERSION
from poai_spec.execution.state import State, compute_state_root, process_header
from poai_spec.chain.upgrades import Rules


# ## Functions

# ### `compute_earliest_timestamp`


def compute_earliest_timestamp(chain: Chain, rules: Rules) -> Milliseconds:
    """Return the least stamp of a block on top of `chain`: above the median, at a period's end above its beginning."""
    earliest, distance = compute_median_time(chain) + 1, len(chain) - rules.anchor
    if distance > 0 and distance % rules.retarget_blocks == 0:
        earliest = max(earliest, chain[len(chain) - rules.retarget_blocks].core.timestamp + 1)
    return earliest


# ### `choose_timestamp`

# A clock that is behind the last blocks is no reason to stop. One that is more than `max_future` behind them is: no node
# with its time would take the block (`header/future`).


def choose_timestamp(chain: Chain, rules: Rules, now: Milliseconds) -> Milliseconds:
    """Return the clock's time, or the earliest stamp that the rules allow if the clock is behind it."""
    return max(now, compute_earliest_timestamp(chain, rules))


# ### `make_template`

# The state root is the one *after* the block, which depends on the core's miner and height alone.


def make_template(chain: Chain, state: State, rules: Rules, miner: Address, timestamp: Milliseconds) -> HeaderCore:
    """Return the core of a block on top of `chain`, with nonce 0; with any other nonce it is as good.

    Args:
        chain: all ancestors, genesis first.
        state: the accounts after the last of them.
        rules: those of the height above them.
        miner: gets the subsidy.
        timestamp: at least `compute_earliest_timestamp`.
    """
    core = HeaderCore(
        version=PROTOCOL_VERSION,
        height=len(chain),
        parent_hash=compute_block_hash(chain[len(chain) - 1]),
        timestamp=timestamp,
        target=compute_target(chain, rules),
        miner=miner,
        body_root=EMPTY_BODY_ROOT,
        state_root=bytes(32),
        nonce=0,
    )
    return replace(core, state_root=compute_state_root(process_header(state, core)))


# ### `make_block`


def make_block(core: HeaderCore, evaluation: Evaluation) -> Block:
    """Return the block that a core's quiz gave; valid if `l_hat` is below the core's target."""
    header = Header(core, evaluation.loss, compute_trace_digest(evaluation.trace))
    return Block(header, EMPTY_BODY, evaluation.trace)


# ## Rationale

# - **Why a page.** Six places built header cores, and a rule about stamps that one of them missed was a block that nobody
#   takes. Genesis alone is not made here: it follows from the config (page [header](header.md)).
# - **The target is the rules' and the ancestors'**, never the maker's wish; so is everything else but miner, stamp and
#   nonce.
