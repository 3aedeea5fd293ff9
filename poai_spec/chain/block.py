# # Block  [generated from specs/chain/block.md by `poai spec compile`: edit the page]

# Status: normative, version 1.

# Every rule that a block must pass, in one total order, and the functions that apply them. **A block that breaks several
# rules fails with the first code in that order.** So every client rejects a block for the same reason, and pays as little
# as possible to find it.


from collections.abc import Mapping
from dataclasses import dataclass

from poai_spec.chain.body import EMPTY_BODY, check_body
from poai_spec.basics.containers import Block
from poai_spec.proof.corpus import Questions
from poai_spec.proof.difficulty import Chain
from poai_spec.model.engine import Engine, Evaluation
from poai_spec.chain.header import check_header_alone, check_header_in_chain, make_genesis_header
from poai_spec.basics.notation import Height, Milliseconds, NotYet
from poai_spec.basics.parameters import Config
from poai_spec.execution.state import State, check_state_root, process_header
from poai_spec.chain.upgrades import Rules, Upgrade, get_rules
from poai_spec.proof.work import check_trace, get_quiz, verify_work


# ## Order of checks

# | | code | class | needs | costs |
# | --- | --- | --- | --- | --- |
# | 1 | `encoding/undecodable` | Malformed | the bytes | decoding |
# | 2 | `header/version` | Invalid | the header | a comparison |
# | 3 | `body/transactions-not-active` | Invalid | the header | a comparison |
# | 4 | `fork-choice/known-invalid` | Invalid | earlier verdicts | a hash, a look-up |
# | 5 | `fork-choice/invalid-ancestor` | Invalid | earlier verdicts | a look-up |
# | 6 | `fork-choice/unknown-parent` | NotYet | the kept headers | a look-up |
# | 7 | `header/parent` | Invalid | the parent | a hash; never fails in a store, which finds parents by hash |
# | 8 | `header/height` | Invalid | the parent | a comparison |
# | 9 | `difficulty/target` | Invalid | the ancestors | a division |
# | 10 | `header/median-time` | Invalid | the ancestors | sorting 11 stamps |
# | 11 | `difficulty/period-not-forward` | Invalid | the ancestors | a comparison |
# | 12 | `work/l-hat` | Invalid | the ancestors | a few hashes |
# | 13 | `header/future` | NotYet | the clock | a comparison |
# | 14 | `fork-choice/too-many-headers` | NotYet | the kept headers | counting |
# | 15 | `body/root` | Malformed | the body | hashing it |
# | 16 | `work/trace-digest` | Malformed | the trace list | hashing it |
# | 17 | `work/trace-length` | Invalid | the trace list | a comparison |
# | 18 | `fork-choice/parent-not-replayed` | NotYet | the parent's state | a look-up |
# | 19 | `state/root` | Invalid | the parent's state | a path in a trie |
# | 20 | `fork-choice/lighter` | NotYet | the kept headers | a comparison |
# | 21 | `block/model-missing` | NotYet | the loaded models | a look-up |
# | 22 | `work/trace` | Invalid | the model | one layer an entry, up to the first false one |
# | 23 | `work/loss` | Invalid | the model | a whole pass |

# A header that travels alone is checked by rules 2 to 14, only that an unknown parent (6) is no error there: the header is
# kept as an orphan, and 7 to 14 wait for the parent ([on_header](fork-choice.md#on_header)). This page contains the rules
# that need no store.

# **Why these classes.** *Invalid* is what the header and its ancestors decide, for every copy of the block and at any
# time: rules 2 to 5, 7 to 12, 19, 22 and 23, and 17 because by then the header is known to commit to this very list.
# *Malformed* is what the sender may have done to a good header: 15 and 16, which is why they come before 17. *NotYet* is
# what depends on this node's clock (13), on what it holds (6, 14, 18, 21) or on what it prefers (20).

# **Why this place for a NotYet.** It must not hide a permanent fault that is as cheap to find, or a forger hides behind
# it unblamed: the clock comes after the hashes of `work/l-hat`, and the lighter branch after everything but the replay.
# And it must come before what is costlier than itself: a header from the future never has its body hashed.

# ## Genesis

# ### `make_genesis`


def make_genesis(config: Config) -> Block:
    """Return block 0, which every node makes for itself; its state is empty."""
    return Block(header=make_genesis_header(config), body=EMPTY_BODY, trace=())


# ## Rules

# ### `check_contents`


def check_contents(block: Block, rules: Rules) -> None:
    """Compare body and trace list with what the header commits to: rules 15 to 17.

    Raises:
        Malformed: `body/root`, `work/trace-digest`.
        Invalid: `work/trace-length`.
    """
    check_body(block)
    check_trace(block, rules)


# ### `process_block`


def process_block(state: State, block: Block) -> State:
    """Return the state after a block: rule 19.

    Args:
        state: the state after its parent.
        block: passed `check_contents`.

    Raises:
        Invalid: `state/root`.
    """
    after = process_header(state, block.header.core)
    check_state_root(after, block.header.core)
    return after


# ### `Model`


@dataclass(frozen=True)
class Model:
    """A loaded model.

    Attributes:
        questions: the lexicon's token ids, or the corpus that stands in its place; passed `check_questions`.
        engine: passed `check_engine`.
    """

    questions: Questions
    engine: Engine


# ### `Judge`


@dataclass(frozen=True)
class Judge:
    """What a node judges a network's blocks with.

    Attributes:
        config: the network; passed `check_config`.
        upgrades: its changes; passed `check_upgrades`.
        models: the loaded ones, by `since` of the rules that ask for them: 0 for the config's own. A missing one stops
            the replay, not the node.
    """

    config: Config
    upgrades: tuple[Upgrade, ...]
    models: Mapping[Height, Model]


# ### `make_judge`


def make_judge(config: Config, questions: Questions, engine: Engine) -> Judge:
    """Return the judge of a network without upgrades."""
    return Judge(config, (), {0: Model(questions, engine)})


# ### `get_judge_rules`


def get_judge_rules(judge: Judge, height: Height) -> Rules:
    """Return the rules of a height."""
    return get_rules(judge.config, judge.upgrades, height)


# ### `get_model`


def get_model(judge: Judge, rules: Rules) -> Model:
    """Return the loaded model for some rules: rule 21.

    Raises:
        NotYet: `block/model-missing`; the block may come again when its file is there.
    """
    model = judge.models.get(rules.since)
    if model is None:
        wanted = rules.model.gguf_sha256.hex()
        raise NotYet("block/model-missing", f"from height {rules.since} on, the model with SHA-256 {wanted} is needed")
    return model


# ### `replay_block`


def replay_block(block: Block, chain: Chain, judge: Judge) -> Evaluation:
    """Run the block's quiz and compare: rules 21 to 23, last of all.

    Raises:
        NotYet: `block/model-missing`.
        Invalid: `work/trace`, `work/loss`.
    """
    rules = get_judge_rules(judge, len(chain))
    model = get_model(judge, rules)
    quiz = get_quiz(block.header.core, chain, rules, model.questions)
    return verify_work(model.engine, quiz, block.header, block.trace)


# ### `check_block`

# The whole validity of a block on a known chain, as `poaid verify` applies it. Fork choice calls the same functions and
# puts its own rules between them.


def check_block(block: Block, chain: Chain, state: State, judge: Judge, now: Milliseconds) -> State:
    """Apply every rule that needs no store, in order, and return the state after the block.

    Args:
        block: meant to stand on top of `chain`.
        chain: all ancestors, genesis first, each valid.
        state: the state after the parent.
        judge: network, upgrades and models.
        now: the local clock, ms since 1970.

    Raises:
        Invalid, Malformed, NotYet: the first rule of the table that the block breaks.
    """
    rules = get_judge_rules(judge, len(chain))
    check_header_alone(block.header)
    check_header_in_chain(block.header, chain, rules, now)
    check_contents(block, rules)
    after = process_block(state, block)
    replay_block(block, chain, judge)
    return after


# ## Rejection codes

# | code | class | meaning |
# | --- | --- | --- |
# | `block/model-missing` | NotYet | the model that the rules of this height ask for is not loaded here |

# ## Rationale

# - **One table.** Two clients that reject a block for different reasons punish different peers. The conformance vectors
#   contain blocks that break two rules.
# - **The replay is last of all**, because it costs a million times more than the rest together, and a forger pays only
#   hashes to reach it.
# - **`state/root` before the replay**, though a miner with false state did real work: he alone bears the cost of it.
# - **Rules 20 to 22 may come before `state/root`** where the parent lies several blocks from the head: its state costs time
#   to find, as much as a forger likes, and whichever code is given, the block does not count.
# - **Genesis is made, not received.** Another network's genesis has no parent here, so it is an orphan like any other
#   stranger. A node knows its own by its hash: the header alone is taken without a word, the whole block is Malformed with
#   `work/trace-digest`, since no list of entries hashes to the zeros in its header, and costs its sender 25 points. So a
#   node never sends it; block 1 is the first that anybody asks for.
