# # Work  [generated from specs/proof/work.md by `poai spec compile`: edit the page]

# Status: normative, version 1.

# How a block's work is checked, from cheap to costly: the hash of the header, the trace list against its digest, and at
# last the replay, a forward pass that stops at the first false trace entry. The rules around it are on the pages
# [block](../chain/block.md) and [fork-choice](../chain/fork-choice.md); what the numbers mean is on the page [loss](../model/loss.md).


from collections.abc import Iterator, Sequence

from poai_spec.basics.containers import Block, Header, HeaderCore, compute_block_hash
from poai_spec.proof.corpus import Questions
from poai_spec.proof.difficulty import Chain
from poai_spec.model.engine import Engine, Evaluation
from poai_spec.proof.epoch import compute_epoch_key, get_epoch, get_seed_height
from poai_spec.model.llama_profile import LLAMA_PROFILE, LLAMA_TRACE_ENTRIES
from poai_spec.model.loss import compute_l_hat, compute_trace_digest, is_below_target
from poai_spec.basics.notation import Hash32, Invalid, Malformed
from poai_spec.proof.quiz import Quiz, compute_quiz_seed, generate_quiz
from poai_spec.chain.upgrades import Rules


# ## Constants

# | name | value | unit | why |
# | --- | --- | --- | --- |
# | `MAX_REMEMBERED` | 1,024 | quizzes | what `MemoEngine` keeps: with 31 entries each, 1 MiB |


MAX_REMEMBERED = 1_024


# ## The quiz of a header

# ### `get_epoch_key`


def get_epoch_key(chain: Chain, rules: Rules) -> Hash32:
    """Return the epoch key of the block on top of `chain`: its seed lies on that branch."""
    epoch = get_epoch(len(chain), rules)
    if epoch == 0:
        return compute_epoch_key(rules.genesis_seed, 0)
    return compute_epoch_key(compute_block_hash(chain[get_seed_height(epoch, rules)]), epoch)


# ### `get_quiz_seed`


def get_quiz_seed(core: HeaderCore, chain: Chain, rules: Rules) -> Hash32:
    """Return the quiz seed of a header core on top of `chain`."""
    return compute_quiz_seed(rules.digest, get_epoch_key(chain, rules), core)


# ### `get_quiz`


def get_quiz(core: HeaderCore, chain: Chain, rules: Rules, source: Questions) -> Quiz:
    """Return the quiz of a header core on top of `chain`; `source` is the lexicon or corpus of these rules' model."""
    return generate_quiz(get_quiz_seed(core, chain, rules), rules, source)


# ## Cheap checks

# ### `check_l_hat`


def check_l_hat(header: Header, chain: Chain, rules: Rules) -> None:
    """Refuse a header whose claimed loss and trace digest do not win.

    Raises:
        Invalid: `work/l-hat`.
    """
    l_hat = compute_l_hat(get_quiz_seed(header.core, chain, rules), header.loss, header.trace_digest)
    if not is_below_target(l_hat, header.core.target):
        raise Invalid("work/l-hat", f"l_hat {l_hat:#x} is not below the target {header.core.target:#x}")


# ### `get_trace_length`


def get_trace_length(rules: Rules) -> int:
    """Return the number of trace entries of a block: L + 1, or what the page llama-profile says for its profile."""
    return LLAMA_TRACE_ENTRIES if rules.profile == LLAMA_PROFILE else rules.model.layer_count + 1


# ### `check_trace`

# The digest is compared first. Once it matches, the header itself commits to this list, so a wrong number of entries is
# the header's fault and permanent; before, it may be the sender's.


def check_trace(block: Block, rules: Rules) -> None:
    """Refuse a trace list that the header does not commit to, or of another length than the rules ask for.

    Raises:
        Malformed: `work/trace-digest`.
        Invalid: `work/trace-length`.
    """
    digest, entries = compute_trace_digest(block.trace), get_trace_length(rules)
    if digest != block.header.trace_digest:
        raise Malformed("work/trace-digest", f"the trace hashes to {digest.hex()}, not to the header's digest")
    if len(block.trace) != entries:
        raise Invalid("work/trace-length", f"{len(block.trace)} trace entries; the rules ask for {entries}")


# ## Replay

# ### `check_engine`


def check_engine(engine: Engine, rules: Rules) -> None:
    """Refuse to judge blocks with another model or arithmetic than that of their rules; once, when a model is loaded.

    Raises:
        Invalid: `work/engine`.
    """
    found = (engine.profile, engine.integer_model_root, engine.layer_count)
    wanted = (rules.profile, rules.model.integer_model_root, rules.model.layer_count)
    if found != wanted:
        raise Invalid("work/engine", f"the engine computes {found}, the rules want {wanted}")


# ### `verify_work`


def verify_work(engine: Engine, quiz: Quiz, header: Header, trace: Sequence[Hash32]) -> Evaluation:
    """Run the quiz of a header and compare what it gives with what is claimed, as soon as it is known.

    Args:
        engine: passed `check_engine`.
        quiz: the quiz of `header.core`.
        header: claims a loss.
        trace: what the header commits to; passed `check_trace`.

    Returns:
        The evaluation, which the claims equal.

    Raises:
        Invalid: `work/trace` at the first false entry, the rest is not computed; `work/loss` if all are true.
    """
    for index, step in enumerate(engine.steps(quiz.tokens, quiz.scored)):
        if isinstance(step, Evaluation):
            check_evaluation(step, header, trace)
            return step
        check_entry(index, step, trace)
    raise AssertionError("an engine's last step is the evaluation")


# ### `check_entry`


def check_entry(index: int, entry: Hash32, trace: Sequence[Hash32]) -> None:
    """Refuse a false trace entry; the detail counts entries from 1.

    Raises:
        Invalid: `work/trace`.
    """
    if trace[index] != entry:
        raise Invalid("work/trace", f"entry {index + 1} of {len(trace)} is {entry.hex()}, claimed {trace[index].hex()}")


# ### `check_evaluation`


def check_evaluation(evaluation: Evaluation, header: Header, trace: Sequence[Hash32]) -> None:
    """Refuse a trace or loss that is not the evaluation's.

    Raises:
        Invalid: `work/trace`, `work/loss`.
    """
    for index, entry in enumerate(evaluation.trace):
        check_entry(index, entry, trace)
    if header.loss != evaluation.loss:
        raise Invalid("work/loss", f"loss {evaluation.loss}, claimed {header.loss}")


# ## Remembered replays

# A forger who has found one core can wrap it in many headers, each with another invented trace and hence another block
# hash. The quiz, and so every true entry, depends on the core alone. A verifier remembers the entries that it has
# computed for a quiz. When a second forgery over the same core is true for longer than what is remembered, it runs the
# quiz to its end, once; from then on each further one costs a comparison. So a core costs at most two passes, however many
# headers are made of it. The result of every check is the same with and without.

# ### `MemoEngine`


class MemoEngine:
    """An engine that remembers the steps of the last `MAX_REMEMBERED` quizzes it was asked to replay."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.profile = engine.profile
        self.integer_model_root = engine.integer_model_root
        self.layer_count = engine.layer_count
        self.known: dict[tuple[tuple[int, ...], tuple[int, ...]], list[Hash32 | Evaluation]] = {}

    def evaluate(self, tokens: Sequence[Sequence[int]], scored: Sequence[Sequence[int]]) -> list[Evaluation]:
        """Run a batch; nothing is remembered, since a miner never asks twice."""
        return self.engine.evaluate(tokens, scored)

    def steps(self, tokens: Sequence[int], scored: Sequence[int]) -> Iterator[Hash32 | Evaluation]:
        """Yield the remembered steps of this quiz first; if the reader wants more, run the model: now to its end."""
        quiz = (tuple(tokens), tuple(scored))
        seen, steps = quiz in self.known, self.known.pop(quiz, [])
        while len(self.known) >= MAX_REMEMBERED:
            del self.known[next(iter(self.known))]
        self.known[quiz] = steps
        remembered = tuple(steps)
        yield from remembered
        if seen and not (steps and isinstance(steps[-1], Evaluation)):
            steps[:] = self.engine.steps(tokens, scored)
        known = steps and isinstance(steps[-1], Evaluation)
        for index, step in enumerate(tuple(steps) if known else self.engine.steps(tokens, scored)):
            if index >= len(steps):
                steps.append(step)
            if index >= len(remembered):
                yield step


# ## Rejection codes

# | code | class | meaning |
# | --- | --- | --- |
# | `work/l-hat` | Invalid | the header's own hash is not below its target |
# | `work/trace-digest` | Malformed | the trace list that came with the header is not the one it commits to |
# | `work/trace-length` | Invalid | the header commits to a list that has not `get_trace_length` entries |
# | `work/trace` | Invalid | a trace entry is not what the model gives |
# | `work/loss` | Invalid | every entry is true, but the claimed loss is not the evaluation's |
# | `work/engine` | Invalid | the loaded model is not that of the rules (local; never said of a block) |

# ## Rationale

# - **Why a false entry is Invalid and not the sender's fault alone.** The list matched the header's digest, so every copy
#   of this header has the same list.
# - **Why the loss comes last.** The output entry covers the scored losses, so a false loss under true entries is only
#   seen when all is computed. A forger can take core and trace from a published block, and pays hashes only; what bounds
#   him is that the verifier remembers the quiz.
# - **What a forgery costs.** To pass `work/l-hat` takes about 2^256 / target hashes, and buys one layer of the verifier's
#   time per core, not a pass, as long as the forger has computed no true entry himself. `poai bench forgery` measures both
#   sides for each preset; figures, and what bounds forgers, are in the [threat model](../../docs/threat-model.md#forging-work).
