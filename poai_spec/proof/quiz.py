# # Quiz  [generated from specs/proof/quiz.md by `poai spec compile`: edit the page]

# Status: normative, version 1.

# The work. Each header core, nonce included, decides one quiz: a token sequence of fixed length for the model to read, and
# a fixed number of positions whose loss counts. Every quiz of a network costs the same, and nothing of one can be prepared
# before its header exists but what depends on a single token (see the rationale).

# ```text
# BOS (if the model has one) | salt | question, question, ..., the last one cut off
# <----------------------------- quiz_tokens ----------------------------------->



from dataclasses import dataclass

from poai_spec.basics.containers import HeaderCore, compute_core_hash
from poai_spec.proof.corpus import Corpus, CorpusItem, Questions, compute_longest_item
from poai_spec.basics.drbg import Drbg
from poai_spec.proof.lexicon import get_tokens
from poai_spec.basics.notation import Hash32, Invalid, tagged_hash
from poai_spec.basics.parameters import ModelManifest
from poai_spec.proof.questions import Question, compute_longest_question, generate_question
from poai_spec.chain.upgrades import Rules


# ## Types

# ### `Quiz`


@dataclass(frozen=True)
class Quiz:
    """What the model reads, and what of it is scored.

    Attributes:
        seed: the quiz seed, which decides all the rest.
        tokens: exactly `quiz_tokens` ids.
        scored: exactly `scored_tokens` positions in `tokens`, ascending, each >= 1.
        salt: the `salt_tokens` random ids at the start.
        questions: the questions in order; of the last one only a part may be in `tokens`. Empty with a corpus.
        items: the corpus's items in order, likewise. Empty without a corpus.
    """

    seed: Hash32
    tokens: tuple[int, ...]
    scored: tuple[int, ...]
    salt: tuple[int, ...]
    questions: tuple[Question, ...]
    items: tuple[CorpusItem, ...] = ()


# ## Functions

# ### `compute_quiz_seed`

# Rules, epoch and header core: whatever a miner can vary changes the quiz. Were a field left out, its variations would
# share one forward pass. The rules digest covers the network id and every upgrade that has passed, so a block never counts
# under two lists of upgrades.


def compute_quiz_seed(rules_digest: Hash32, epoch_key: Hash32, core: HeaderCore) -> Hash32:
    """Return `Keccak(tag || rules_digest || epoch_key || core_hash)`, the seed of the quiz's random bits."""
    return tagged_hash("PoAI/quiz/1", rules_digest, epoch_key, compute_core_hash(core))


# ### `draw_salt`


def draw_salt(drbg: Drbg, count: int, model: ModelManifest) -> tuple[int, ...]:
    """Draw `count` ids, each uniform over the manifest's salt ranges laid end to end."""
    size = sum(span.last - span.first + 1 for span in model.salt_ranges)
    salt = []
    for _ in range(count):
        index = drbg.below(size)
        for span in model.salt_ranges:
            if index <= span.last - span.first:
                salt.append(span.first + index)
                break
            index -= span.last - span.first + 1
    return tuple(salt)


# ### `draw_question`


def draw_question(
    drbg: Drbg, source: Questions
) -> tuple[Question | CorpusItem, tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Draw a question; return it, and the token ids of its prompt, of its answer and of the end of its line.

    Every item of a corpus is equally likely, each time: an item may come again.
    """
    if isinstance(source, Corpus):
        item = drbg.choice(source.items)
        return item, item.prompt, item.answer, source.line_end
    question = generate_question(drbg)
    return question, get_tokens(source, question.prompt), get_tokens(source, question.answer), source.ids["\n"]


# ### `generate_quiz`

# The salt is drawn first, then whole questions until the sequence is full.


def generate_quiz(quiz_seed: Hash32, rules: Rules, source: Questions) -> Quiz:
    """Return the quiz of a seed; `source` is the lexicon or corpus that `rules.model.questions_digest` names."""
    drbg = Drbg(quiz_seed)
    salt = draw_salt(drbg, rules.salt_tokens, rules.model)
    tokens = [rules.model.bos_id, *salt] if rules.model.add_bos else [*salt]
    drawn: list[Question | CorpusItem] = []
    answers: list[int] = []
    while len(tokens) < rules.quiz_tokens:
        question, prompt, answer, line_end = draw_question(drbg, source)
        drawn.append(question)
        tokens += prompt
        answers += range(len(tokens), len(tokens) + len(answer))
        tokens += answer + line_end
    questions = tuple(question for question in drawn if isinstance(question, Question))
    items = tuple(item for item in drawn if isinstance(item, CorpusItem))
    scored = select_scored(answers, rules)
    return Quiz(quiz_seed, tuple(tokens[: rules.quiz_tokens]), scored, salt, questions, items)


# ### `select_scored`

# The number of scored positions is fixed, so that the size of a loss does not depend on how many questions a quiz happens to
# hold. Answers come first, in order of position. Where a quiz has too few of them, the last positions of the sequence that
# are not scored yet complete the number: they have seen the most context, whatever they are.


def select_scored(answers: list[int], rules: Rules) -> tuple[int, ...]:
    """Return exactly `scored_tokens` positions, ascending.

    Args:
        answers: positions of answer tokens, ascending, each once; those at or beyond `quiz_tokens` are cut off.
        rules: `check_config` makes sure that neither salt nor BOS, and so never position 0, is ever needed.
    """
    scored = {position for position in answers[: rules.scored_tokens] if position < rules.quiz_tokens}
    for position in reversed(range(rules.quiz_tokens)):
        if len(scored) == rules.scored_tokens:
            break
        scored.add(position)
    return tuple(sorted(scored))


# ### `check_longest_question`

# Called once, when a network is loaded. Every quiz then holds at least one whole question.


def check_longest_question(rules: Rules, source: Questions) -> None:
    """Refuse a network whose longest question, or corpus item, is longer than what BOS and salt leave of a quiz.

    Raises:
        Invalid: `quiz/question-too-long`.
    """
    room = rules.quiz_tokens - rules.salt_tokens - int(rules.model.add_bos)
    longest = compute_longest_item(source) if isinstance(source, Corpus) else compute_longest_question(source)
    if longest > room:
        raise Invalid("quiz/question-too-long", f"a question can take {longest} tokens, the quiz has room for {room}")


# ## For people

# ### `get_quiz_name`


def get_quiz_name(salt: tuple[int, ...]) -> str:
    """Return the salt in hexadecimal, the name under which a quiz is logged: `1a2b-00ff-...`."""
    return "-".join(f"{token:04x}" for token in salt)


# ### `get_quiz_text`


def get_quiz_text(quiz: Quiz) -> str:
    """Return the questions with their answers, one a line, the last one whole even if the sequence cuts it off.

    Empty for a corpus, whose token ids are no text.
    """
    return "".join(question.text + "\n" for question in quiz.questions)


# ## Rejection codes

# | code | class | meaning |
# | --- | --- | --- |
# | `quiz/question-too-long` | Invalid | the network's quizzes have no room for its longest question |

# ## Rationale

# - **Why salt?** The states of a causal model at position t depend on tokens 0 .. t only, so two quizzes with a common
#   beginning share the work for it. A miner can generate quizzes for very many nonces, which is cheap, sort them, and run
#   the model once for each common beginning. Random tokens in front make common beginnings as rare as chance allows. The
#   table shows how much 100,000 sorted quizzes of 64 tokens save, as measured; the constant BOS, whose state every miner
#   keeps, is left out.

#   | lexicon | 8 salt tokens | no salt |
#   | --- | --- | --- |
#   | `smollm2-135m` | 0.9 % | 11.9 % |
#   | `tinyllama-1.1b` | 1.1 % | 12.5 % |

#   With ever more quizzes the first salt token is always shared, 1 token in 64 or 1.6 %; sharing a second one takes about
#   as many quizzes as the square of the vocabulary's size, 10^9 at least.
# - **What can be prepared.** The residual that enters the first block depends on one token alone, and so do its q, k and v
#   before rotation. A table of them, a row for each token of the vocabulary, saves three matrix products of one block: of
#   all multiplications by the blocks' matrices 0.52 % with SmolLM2, 0.54 % with TinyLlama, 4.4 % with poai-mini. From the
#   first attention on everything depends on the tokens before, and so on the salt.
# - **Why only normal tokens?** Control tokens can change how a model reads what follows, and some vocabularies hold unused
#   tokens whose embeddings were never trained.
# - **Why is the last question cut off?** Padding would be work that everybody knows beforehand.
# - **Why are positions that are no answers scored at all?** Because a quiz with a long puzzle may hold two answer tokens
#   and another one twelve. The work, the memory and the meaning of the loss should not vary with that.
# - **No position of the salt is scored.** `check_config` demands `scored_tokens < quiz_tokens - salt_tokens - BOS`, and the
#   completion goes downwards from the end, so it stops before it reaches the salt.
