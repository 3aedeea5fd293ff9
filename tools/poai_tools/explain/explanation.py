"""What there is to say of one block: its fields, what follows from them step by step, and every rule.

All values are texts, small numbers and lists, so an `Explanation` is also what `poai explain --json` prints.

Exports: `Explanation`, `explain`.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import zip_longest
from typing import Any

from poai_engine.models.corpus_maker import get_text
from poai_engine.models.gguf_file import Vocabulary
from poai_spec.basics.containers import Block, Header, compute_block_hash, compute_core_hash
from poai_spec.basics.notation import Hash32
from poai_spec.basics.parameters import compute_network_id
from poai_spec.chain.body import EMPTY_BODY_ROOT
from poai_spec.chain.upgrades import Rules, compute_rules_digest, get_multiplications
from poai_spec.execution.state import Account, process_header
from poai_spec.execution.trie import EMPTY_TRIE_ROOT
from poai_spec.model.loss import compute_l_hat, compute_trace_digest, is_below_target
from poai_spec.proof.corpus import Corpus
from poai_spec.proof.difficulty import compute_quizzes, compute_target, compute_work
from poai_spec.proof.economics import compute_subsidy
from poai_spec.proof.epoch import compute_epoch_key, get_epoch, get_seed_height
from poai_spec.proof.quiz import Quiz, compute_quiz_seed, get_quiz_name
from poai_spec.proof.work import get_epoch_key, get_quiz
from poai_tools.explain.checks import Check, ExplainedBlock, Place, apply_rules, get_page
from poai_tools.explain.fields import Field, lay_out
from poaid.amounts import format_count, format_poai
from poaid.api.node_view import find_answers, to_hex
from poaid.network_file import Network

BITS = 1 << 16  # losses are Q16
EPOCH_OF_TIME = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class FieldRow:
    """A field of the encoding.

    Attributes:
        path: the way to it.
        name: the end of the path.
        offset: of its first byte.
        type: its SSZ type.
        hex: its bytes.
        value: what they say, for people.
        meaning: what the field is.
    """

    path: str
    name: str
    offset: int
    type: str
    hex: str
    value: str
    meaning: str


@dataclass(frozen=True)
class Step:
    """A value that follows from the block.

    Attributes:
        name: of the value.
        value: as 0x and digits where it is a hash.
        how: what it is made of.
        page: the function that makes it; empty for what the block says itself.
    """

    name: str
    value: str
    how: str
    page: str


@dataclass(frozen=True)
class QuestionRow:
    """A question of the quiz; `cut` if the sequence ends before its answer does."""

    prompt: str
    answer: str
    cut: bool


@dataclass(frozen=True)
class ScoredRow:
    """A token whose loss counts.

    Attributes:
        position: in the quiz.
        token: its id.
        text: what it says; None where neither the model nor the lexicon tells.
        is_answer: whether it belongs to an answer; the others fill up their number.
        nll: the model's loss on it, bits in Q16; None if the model was not run.
    """

    position: int
    token: int
    text: str | None
    is_answer: bool
    nll: int | None


@dataclass(frozen=True)
class ReplayRow:
    """A result of the forward pass as the block claims it and as the model gives it; None for what is not at hand."""

    name: str
    claimed: str | None
    computed: str | None


@dataclass(frozen=True)
class QuizPart:
    """The quiz: its name, the questions, all tokens, and those that are scored."""

    name: str
    questions: list[QuestionRow]
    tokens: list[int]
    scored: list[ScoredRow]


@dataclass(frozen=True)
class Replay:
    """The forward pass.

    Attributes:
        rows: the loss in bits of Q16, the trace digest, and the entries of the trace.
        reason: why the model was not run; empty if it was.
    """

    rows: list[ReplayRow]
    reason: str


@dataclass(frozen=True)
class Explanation:
    """Everything about one block.

    Attributes:
        origin: where it was found.
        kind: `block`, `header`, `genesis block` or `genesis header`.
        size: bytes of its encoding.
        hash: the block hash.
        network: name, id, profile and questions of the network; None if the block's place is not known.
        fields: of the encoding.
        steps: what follows from them.
        quiz: None for genesis, and where the place is not known.
        replay: likewise.
        checks: every rule; empty for genesis.
        verdict: the first rule that is broken, in the order of checks; None if none is.
    """

    origin: str
    kind: str
    size: int
    hash: str
    network: dict[str, str] | None
    fields: list[FieldRow]
    steps: list[Step]
    quiz: QuizPart | None
    replay: Replay | None
    checks: list[Check]
    verdict: Check | None


def explain(subject: ExplainedBlock, data: bytes, origin: str, vocabulary: Vocabulary | None) -> Explanation:
    """Return everything about a block or header.

    Args:
        subject: the block.
        data: its encoding.
        origin: where it was found.
        vocabulary: the texts of the model's tokens, if the model is at hand.
    """
    checks = apply_rules(subject)
    kind = ("genesis " if subject.is_genesis else "") + ("block" if subject.block else "header")
    quiz = find_quiz(subject)
    place = subject.place
    return Explanation(
        origin=origin,
        kind=kind,
        size=len(data),
        hash=to_hex(compute_block_hash(subject.header)),
        network=None if place is None else describe_network(place.network, place.rules),
        fields=list(list_fields(subject, data)),
        steps=list(derive(subject, quiz)),
        quiz=None if quiz is None or place is None else describe_quiz(quiz, place, subject, vocabulary),
        replay=None if quiz is None else describe_replay(subject),
        checks=checks,
        verdict=next((check for check in checks if check.outcome == "broken"), None),
    )


def find_quiz(subject: ExplainedBlock) -> Quiz | None:
    """Return the quiz of a block; None for genesis, and if its place is not known."""
    if subject.place is None or subject.is_genesis:
        return None
    place = subject.place
    return get_quiz(subject.core, place.chain, place.rules, place.questions)


def describe_network(network: Network, rules: Rules) -> dict[str, str]:
    """Return what tells a network from others, and the rules in force for the block."""
    return {
        "name": network.name,
        "id": to_hex(compute_network_id(network.config)),
        "profile": rules.profile.decode("ascii"),
        "questions": network.get_questions_name(rules),
        "rules": describe_rules(network, rules),
    }


def describe_rules(network: Network, rules: Rules) -> str:
    """Return in words which rules hold: since when, and what changes next."""
    coming = next((each.since for each in network.list_rules() if each.since > rules.since), None)
    since = f"those of the upgrade at height {rules.since:,}" if rules.since else "those that the network began with"
    return f"{since}, until height {coming - 1:,}" if coming else since


# Fields.


def list_fields(subject: ExplainedBlock, data: bytes) -> Iterator[FieldRow]:
    """Yield the fields of the encoding, with what their values say."""
    for field in lay_out(Block if subject.block else Header, data):
        value, meaning = describe_value(field, subject), field.meaning or describe_item(field, subject)
        yield FieldRow(field.path, field.name, field.offset, field.type, field.data.hex(), value, meaning)


def describe_value(field: Field, subject: ExplainedBlock) -> str:
    """Return what a field's bytes say: a number, an amount, a date, or that a hash is a known one."""
    core, subsidy = subject.core, compute_subsidy(subject.core.height)
    known: dict[str, Callable[[], str]] = {
        "timestamp": lambda: format_time(core.timestamp),
        "target": lambda: describe_target(core.target),
        "miner": lambda: f"gets {format_poai(subsidy)}" if subsidy else "gets nothing",
        "loss": lambda: f"{subject.header.loss}: {subject.header.loss / BITS:.3f} bits",
        "parent_hash": lambda: describe_parent(subject),
        "body_root": lambda: "the empty body's" if core.body_root == EMPTY_BODY_ROOT else "not the empty body's",
        "state_root": lambda: "of no accounts" if core.state_root == EMPTY_TRIE_ROOT else "",
    }
    if field.name in known:
        return known[field.name]()
    return str(field.number) if field.type.startswith("uint") or field.type == "offset" else ""


def describe_parent(subject: ExplainedBlock) -> str:
    """Return which block the parent hash means, if that is known."""
    if subject.is_genesis:
        return "the network id"
    if subject.place is None or compute_block_hash(subject.place.chain[-1]) != subject.core.parent_hash:
        return "a block that is not known here"
    return f"block {len(subject.place.chain) - 1:,}"


def describe_item(field: Field, subject: ExplainedBlock) -> str:
    """Return what an item of a list is."""
    if not field.path.startswith("trace["):
        return "a transaction, of which version 1 allows none"
    number, count = int(field.path[6:-1]) + 1, len(subject.block.trace) if subject.block else 0
    return "the output entry" if number == count else f"after layer {number}"


def describe_target(target: int) -> str:
    """Return a target as difficulty."""
    return f"one quiz in {format_ratio((1 << 256) / target)} wins" if target else "no quiz wins"


def format_ratio(number: float) -> str:
    """Return a number from 1 on with at most two decimals, without zeros at its end; a long one as a power of ten."""
    return f"{number:.3g}" if number >= 10**15 else f"{number:,.2f}".rstrip("0").rstrip(".")


def format_time(milliseconds: int) -> str:
    """Return a time stamp as a date in UTC; one that Python's calendar does not reach as it is."""
    try:
        time = EPOCH_OF_TIME + timedelta(milliseconds=milliseconds)
    except OverflowError:
        return f"{milliseconds}: after the year 9999"
    return f"{milliseconds}: {time:%Y-%m-%d %H:%M:%S}.{milliseconds % 1000:03d} UTC"


# What follows.


def derive(subject: ExplainedBlock, quiz: Quiz | None) -> Iterator[Step]:
    """Yield what follows from a block, in the order in which a verifier computes it."""
    core, place = subject.core, subject.place
    if place is not None:
        yield _step("network id", compute_network_id(place.network.config), "tag, config", compute_network_id)
        yield _step("rules digest", place.rules.digest, "tag, network id, upgrades passed", compute_rules_digest)
        if not subject.is_genesis:
            yield from _derive_epoch(place)
    yield _step("core hash", compute_core_hash(core), "tag, the 176 bytes of the core", compute_core_hash)
    yield Step("nonce", f"{core.nonce}", "chosen by the miner: another one makes another core hash", "")
    yield Step("target", f"{core.target:#066x}", describe_target(core.target), get_page(compute_target))
    quizzes = compute_quizzes(core.target)
    yield Step("quizzes", f"{quizzes:,}", "expected for this target", get_page(compute_quizzes))
    if place is not None:
        rules = place.rules
        work, how = compute_work(core.target, rules), f"{get_multiplications(rules):,} multiplications a quiz"
        yield Step("work", f"{work:,}", f"multiplications: quizzes times {how}", get_page(compute_work))
    if quiz is not None:
        how = "tag, rules digest, epoch key, core hash"
        yield _step("quiz seed", quiz.seed, how, compute_quiz_seed)
        yield from _derive_work(subject, quiz)
    how = "tag, the 216 bytes of the header"
    yield _step("block hash", compute_block_hash(subject.header), how, compute_block_hash)
    if place is not None:
        yield from _derive_reward(subject, place)


def _step(name: str, digest: Hash32, parts: str, function: Any) -> Step:
    return Step(name, to_hex(digest), f"Keccak of {parts}", get_page(getattr(function, "__wrapped__", function)))


def _derive_epoch(place: Place) -> Iterator[Step]:
    rules, height = place.rules, len(place.chain)
    epoch = get_epoch(height, rules)
    how = f"{height:,} // {format_count(rules.epoch_blocks, 'block')}"
    yield Step("epoch", f"{epoch:,}", how, get_page(get_epoch))
    seed = f"hash of block {get_seed_height(epoch, rules):,}" if epoch else "the network's genesis seed"
    yield _step("epoch key", get_epoch_key(place.chain, rules), f"{seed}, epoch", compute_epoch_key)


def _derive_work(subject: ExplainedBlock, quiz: Quiz) -> Iterator[Step]:
    header, block = subject.header, subject.block
    if block is not None:
        digest = compute_trace_digest(block.trace)
        same = "as in the header" if digest == header.trace_digest else "the header has another one"
        entries = format_count(len(block.trace), "trace entry", "trace entries")
        yield _step("trace digest", digest, f"tag, {entries}: {same}", compute_trace_digest)
    l_hat = compute_l_hat(quiz.seed, header.loss, header.trace_digest)
    how = "Keccak of tag, quiz seed, loss, trace digest, read as a big-endian integer"
    yield Step("l_hat", f"{l_hat:#066x}", how, get_page(compute_l_hat))
    wins = is_below_target(l_hat, header.core.target)
    yield Step("wins", "yes" if wins else "no", "l_hat < target", get_page(is_below_target))


def _derive_reward(subject: ExplainedBlock, place: Place) -> Iterator[Step]:
    core = subject.core
    yield Step(
        "subsidy", format_poai(compute_subsidy(core.height)), "new money for the miner", get_page(compute_subsidy)
    )
    if not subject.is_genesis:
        balance = process_header(place.state, core).get(core.miner, Account()).balance
        yield Step("balance", format_poai(balance), "of the miner after this block", get_page(process_header))


# The quiz, and what the model makes of it.


def describe_quiz(quiz: Quiz, place: Place, subject: ExplainedBlock, vocabulary: Vocabulary | None) -> QuizPart:
    """Return the quiz as people read it."""
    first = len(quiz.salt) + int(place.rules.model.add_bos)
    answers = set(find_answers(quiz, place.questions, first))
    nlls = subject.evaluation.nlls if subject.evaluation else [None] * len(quiz.scored)
    texts = find_texts(place, vocabulary)
    scored = [
        ScoredRow(at, quiz.tokens[at], texts.get(quiz.tokens[at]), at in answers, nll)
        for at, nll in zip(quiz.scored, nlls, strict=True)
    ]
    return QuizPart(get_quiz_name(quiz.salt), list(list_questions(quiz, place, vocabulary)), list(quiz.tokens), scored)


def list_questions(quiz: Quiz, place: Place, vocabulary: Vocabulary | None) -> Iterator[QuestionRow]:
    """Yield the questions in order; those of a corpus are numbers unless the model is at hand."""
    first = len(quiz.salt) + int(place.rules.model.add_bos)
    is_cut = max(find_answers(quiz, place.questions, first)) >= len(quiz.tokens)
    lines = [("".join(question.prompt), "".join(question.answer)) for question in quiz.questions]
    for item in quiz.items:
        sides = (item.prompt, item.answer)
        prompt, answer = (get_text(vocabulary, ids) if vocabulary else f"{[*ids]}" for ids in sides)
        lines.append((prompt, answer))
    for number, (prompt, answer) in enumerate(lines, 1):
        yield QuestionRow(prompt, answer, is_cut and number == len(lines))


def find_texts(place: Place, vocabulary: Vocabulary | None) -> Mapping[int, str]:
    """Return the texts of tokens: the model's, or without it those that the lexicon uses."""
    if vocabulary is not None:
        return {token: text.decode("utf-8", "replace") for token, text in enumerate(vocabulary.tokens)}
    if isinstance(place.questions, Corpus):
        return {}
    return {ids[0]: piece for piece, ids in place.questions.ids.items() if len(ids) == 1}


def describe_replay(subject: ExplainedBlock) -> Replay:
    """Return what the model gave, beside what the block claims."""
    header, evaluation = subject.header, subject.evaluation
    digest = None if evaluation is None else to_hex(compute_trace_digest(evaluation.trace))
    rows = [
        ReplayRow("loss", str(header.loss), None if evaluation is None else str(evaluation.loss)),
        ReplayRow("trace digest", to_hex(header.trace_digest), digest),
    ]
    claimed, computed = subject.block.trace if subject.block else (), evaluation.trace if evaluation else ()
    for number, pair in enumerate(zip_longest(claimed, computed)):
        rows.append(ReplayRow(f"trace[{number}]", *(None if entry is None else to_hex(entry) for entry in pair)))
    return Replay(rows, subject.no_replay)
