# # Test corpus  [generated from specs/proof/corpus.md by `poai spec compile`: edit the page]

# Status: normative, version 1.

# A network may take its questions from a text instead of generating them: a *test corpus*, a list of questions with their
# answers. Whoever founds such a network tokenises the text once, and the result, token ids and nothing else, is part of
# the network: its digest stands in the manifest where the lexicon's would, so another corpus is another network. Salt, the
# length of a quiz and the number of scored tokens stay what they are. No tokenizer takes part in consensus here either.


from dataclasses import dataclass
from typing import TypeAlias

from ssz.sedes import List, uint32

from poai_spec.basics.encoding import encode, get_sedes, ssz_field
from poai_spec.proof.lexicon import Lexicon, check_lexicon
from poai_spec.basics.notation import Hash32, Invalid, tagged_hash
from poai_spec.basics.parameters import MAX_QUIZ_TOKENS, ModelManifest


# ## Constants

# | name | value | unit | why |
# | --- | --- | --- | --- |
# | `MIN_CORPUS_ITEMS` | 1,000 | items | fewer would put the same question into every few quizzes |
# | `MAX_CORPUS_ITEMS` | 16,384 | items | decoding that many takes seconds in plain Python, at each start of a node |


MIN_CORPUS_ITEMS = 1_000
MAX_CORPUS_ITEMS = 16_384


# ## Types

# ### `CorpusItem`


@dataclass(frozen=True)
class CorpusItem:
    """One question.

    Attributes:
        prompt: token ids of the question.
        answer: token ids of its one answer, with what parts it from the question; these are scored.
    """

    prompt: tuple[int, ...] = ssz_field(List(uint32, MAX_QUIZ_TOKENS))
    answer: tuple[int, ...] = ssz_field(List(uint32, MAX_QUIZ_TOKENS))


# ### `Corpus`

# A corpus file is the container's encoding (page [encoding](../basics/encoding.md)) and nothing else.


@dataclass(frozen=True)
class Corpus:
    """All questions of a network, for one model.

    Attributes:
        line_end: token ids that follow every answer.
        items: ascending by prompt, id by id, a prompt before those that it begins; no prompt twice.
    """

    line_end: tuple[int, ...] = ssz_field(List(uint32, MAX_QUIZ_TOKENS))
    items: tuple[CorpusItem, ...] = ssz_field(List(get_sedes(CorpusItem), MAX_CORPUS_ITEMS), item=CorpusItem)


# Where questions come from: a lexicon with the generators of the page [questions](questions.md), or a corpus. The
# manifest's field `corpus` says which.


Questions: TypeAlias = Lexicon | Corpus


# ## Functions

# ### `compute_corpus_digest`


def compute_corpus_digest(corpus: Corpus) -> Hash32:
    """Return the `questions_digest` of a manifest whose `corpus` is true."""
    return tagged_hash("PoAI/corpus/1", encode(corpus))


# ### `compute_longest_item`


def compute_longest_item(corpus: Corpus) -> int:
    """Return the number of tokens of the longest line: prompt, answer and line end."""
    return max(len(item.prompt) + len(item.answer) for item in corpus.items) + len(corpus.line_end)


# ### `check_corpus`


def check_corpus(corpus: Corpus, model: ModelManifest) -> None:
    """Refuse a corpus that is not well-formed or not the manifest's; called once, when a network is loaded.

    Raises:
        Invalid: `corpus/too-few`, `corpus/empty`, `corpus/id-range`, `corpus/order`, `corpus/digest`, in this order.
    """
    if len(corpus.items) < MIN_CORPUS_ITEMS:
        raise Invalid("corpus/too-few", f"{len(corpus.items)} items; at least {MIN_CORPUS_ITEMS} are needed")
    parts = [corpus.line_end, *(part for item in corpus.items for part in (item.prompt, item.answer))]
    if not all(parts):
        raise Invalid("corpus/empty", "the line end, a prompt or an answer has no tokens")
    highest = max(token for part in parts for token in part)
    if highest >= model.vocabulary_size:
        raise Invalid("corpus/id-range", f"token {highest}, but the vocabulary has {model.vocabulary_size}")
    for number in range(1, len(corpus.items)):
        if corpus.items[number - 1].prompt >= corpus.items[number].prompt:
            raise Invalid("corpus/order", f"item {number}, counted from 0, is not above the one before it")
    digest = compute_corpus_digest(corpus)
    if digest != model.questions_digest:
        raise Invalid("corpus/digest", f"digest {digest.hex()}, but the manifest says {model.questions_digest.hex()}")


# ### `check_questions`


def check_questions(questions: Questions, model: ModelManifest) -> None:
    """Refuse a lexicon or corpus that is not the manifest's.

    Raises:
        Invalid: `corpus/kind`, then what `check_corpus` or `check_lexicon` finds.
    """
    if isinstance(questions, Corpus) != model.corpus:
        raise Invalid("corpus/kind", f"the manifest says corpus = {model.corpus}, the source is of the other kind")
    if isinstance(questions, Corpus):
        check_corpus(questions, model)
    else:
        check_lexicon(questions, model)


# ```pycon
# >>> from poai_spec.proof.corpus import Corpus, CorpusItem, compute_corpus_digest, compute_longest_item
# >>> corpus = Corpus((13,), (CorpusItem((5, 6), (7,)), CorpusItem((5, 6, 2), (8, 9))))
# >>> compute_longest_item(corpus), compute_corpus_digest(corpus).hex()[:16]
# (6, '88aa9e5e3ded8c67')


# ## How a corpus is made

# Not part of consensus: the founder of a network does this once, `--test-corpus DIR` with llama.cpp's tokenizer. `DIR`
# holds text files `*.txt` in UTF-8, a line `question<TAB>answer` each. Prompt, answer and line end are tokenised apart, as
# the pieces of a lexicon are (page [lexicon](lexicon.md)): the ids of the question, of a space and the answer, and of a
# newline. A line whose ids do not turn back into its text is refused. The order of files and lines does not matter.

# ## Rejection codes

# | code | class | meaning |
# | --- | --- | --- |
# | `corpus/kind` | Invalid | a lexicon where the manifest says corpus, or a corpus where it says lexicon |
# | `corpus/too-few` | Invalid | fewer than 1,000 items |
# | `corpus/empty` | Invalid | a prompt, an answer or the line end has no tokens |
# | `corpus/id-range` | Invalid | an id outside the model's vocabulary |
# | `corpus/order` | Invalid | prompts not strictly ascending, so out of order or repeated |
# | `corpus/digest` | Invalid | another corpus than the one that the network id covers |

# A corpus that does not decode is `encoding/undecodable`; one whose longest line has no room in a quiz is
# `quiz/question-too-long`.

# ## Rationale

# - **Why sorted?** The same lines give the same network, in whatever files and order they came.
# - **Why no prompt twice?** A question has one answer. Where two lines ask the same, one of them is wrong.
# - **Why is a public corpus no weakness?** A miner may know every line. The salt in front is new in every quiz, and every
#   state after it depends on it (page [quiz](quiz.md)); prompts that can be looked up save no work.
