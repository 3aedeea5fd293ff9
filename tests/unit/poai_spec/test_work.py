"""Work: the epoch seed on a branch, the replay that stops early, and what is remembered of replays."""

from dataclasses import replace
from typing import Any

import pytest

import poai_spec.proof.work
from poai_spec.chain.block import make_genesis
from poai_spec.basics.containers import Block, compute_block_hash
from poai_spec.model.engine import Evaluation
from poai_spec.proof.epoch import compute_epoch_key
from poai_spec.model.loss import compute_l_hat, compute_trace_digest
from poai_spec.basics.notation import Invalid
from poai_spec.chain.upgrades import get_rules
from poai_spec.proof.work import MemoEngine, check_engine, check_l_hat, get_epoch_key, get_quiz, get_quiz_seed, verify_work
from tests.harness.engines import CountingEngine
from tests.harness.spec import (LAYERS, LEXICON, Branch, complete, get_config, get_engine, make_core, mine)

START = get_config().genesis_timestamp
CHAIN = [make_genesis(get_config()).header]
BLOCK = complete(make_core(CHAIN, {}, START + 1000), CHAIN)
QUIZ = get_quiz(BLOCK.header.core, CHAIN, get_rules(get_config(), (), 0), LEXICON)


def with_false_entry(block: Block, index: int) -> Block:
    trace = (*block.trace[:index], bytes(32), *block.trace[index + 1 :])
    return Block(replace(block.header, trace_digest=compute_trace_digest(trace)), block.body, trace)


def test_a_true_block_is_replayed_to_the_end() -> None:
    engine = CountingEngine(get_engine())
    evaluation = verify_work(engine, QUIZ, BLOCK.header, BLOCK.trace)
    assert (evaluation.loss, evaluation.trace) == (BLOCK.header.loss, BLOCK.trace)
    assert engine.steps_taken == LAYERS + 1


@pytest.mark.parametrize("index", range(LAYERS + 1))
def test_a_replay_stops_at_the_first_false_entry(index: int) -> None:
    engine, false = CountingEngine(get_engine()), with_false_entry(BLOCK, index)
    with pytest.raises(Invalid) as error:
        verify_work(engine, QUIZ, false.header, false.trace)
    assert error.value.code == "work/trace"
    assert f"entry {index + 1} of {LAYERS + 1} " in error.value.detail
    assert engine.steps_taken == index + 1


@pytest.mark.parametrize("delta", [-1, 1])
def test_a_false_loss_is_found_last(delta: int) -> None:
    engine, header = CountingEngine(get_engine()), replace(BLOCK.header, loss=BLOCK.header.loss + delta)
    with pytest.raises(Invalid) as error:
        verify_work(engine, QUIZ, header, BLOCK.trace)
    assert error.value.code == "work/loss"
    assert engine.steps_taken == LAYERS + 1


def test_a_false_entry_comes_before_a_false_loss() -> None:
    false = with_false_entry(BLOCK, LAYERS)
    with pytest.raises(Invalid) as error:
        verify_work(get_engine(), QUIZ, replace(false.header, loss=0), false.trace)
    assert error.value.code == "work/trace"


def test_epochs_are_seeded_on_the_branch() -> None:
    config, main = get_config(), Branch.start()
    for n in range(6):
        main.grow(START + 1000 * (n + 1))
    keys = [get_epoch_key(main.chain[:height], get_rules(config, (), 0)) for height in range(1, 7)]
    second, third = (compute_block_hash(main.chain[height]) for height in (2, 5))
    assert keys == [
        *[compute_epoch_key(config.genesis_seed, 0)] * 2,
        *[compute_epoch_key(second, 1)] * 3,
        compute_epoch_key(third, 2),
    ]
    rival = main.fork(1)
    rival.grow(START + 2500)
    assert get_epoch_key(rival.chain, get_rules(config, (), 0)) != keys[2], "another branch has another seed"
    assert get_epoch_key(rival.chain[:2], get_rules(config, (), 0)) == keys[1]


def test_l_hat_must_be_strictly_below_the_target() -> None:
    header = mine(make_core(CHAIN, {}, START + 1000), CHAIN).header
    seed = get_quiz_seed(header.core, CHAIN, get_rules(get_config(), (), 0))
    assert compute_l_hat(seed, header.loss, header.trace_digest) < header.core.target
    check_l_hat(header, CHAIN, get_rules(get_config(), (), 0))
    lost = mine(make_core(CHAIN, {}, START + 1000), CHAIN, win=False).header
    with pytest.raises(Invalid) as error:
        check_l_hat(lost, CHAIN, get_rules(get_config(), (), 0))
    assert error.value.code == "work/l-hat"


@pytest.mark.parametrize("change", [{"profile": b"llama.cpp"}, {"root": bytes(32)}, {"layers": 3}])
def test_an_engine_of_another_model_is_refused(change: dict[str, Any]) -> None:
    config = get_config()
    check_engine(get_engine(), get_rules(config, (), 0))
    model = replace(
        config.model,
        integer_model_root=change.get("root", config.model.integer_model_root),
        layer_count=change.get("layers", config.model.layer_count),
    )
    with pytest.raises(Invalid) as error:
        check_engine(
            get_engine(), get_rules(replace(config, model=model, profile=change.get("profile", config.profile)), (), 0)
        )
    assert error.value.code == "work/engine"


def test_further_forgeries_over_one_core_cost_no_further_layer() -> None:
    counting = CountingEngine(get_engine())
    engine, false = MemoEngine(counting), with_false_entry(BLOCK, 1)
    for _ in range(3):
        with pytest.raises(Invalid):
            verify_work(engine, QUIZ, false.header, false.trace)
    assert counting.steps_taken == 2
    with pytest.raises(Invalid):
        verify_work(engine, QUIZ, BLOCK.header, with_false_entry(BLOCK, 0).trace)
    assert counting.steps_taken == 2
    assert verify_work(engine, QUIZ, BLOCK.header, BLOCK.trace).trace == BLOCK.trace
    assert counting.steps_taken == 2 + LAYERS + 1
    assert verify_work(engine, QUIZ, BLOCK.header, BLOCK.trace).trace == BLOCK.trace
    assert counting.steps_taken == 2 + LAYERS + 1


def test_what_is_remembered_equals_what_is_computed() -> None:
    engine = MemoEngine(get_engine())
    fresh = list(get_engine().steps(QUIZ.tokens, QUIZ.scored))
    assert isinstance(fresh[-1], Evaluation)
    for taken in (1, 2, LAYERS + 1, LAYERS + 1):
        steps = engine.steps(QUIZ.tokens, QUIZ.scored)
        assert [next(steps) for _ in range(taken)] == fresh[:taken]
    assert list(engine.steps(QUIZ.tokens, QUIZ.scored)) == fresh
    assert engine.evaluate([QUIZ.tokens], [QUIZ.scored]) == [fresh[-1]]
    check_engine(engine, get_rules(get_config(), (), 0))


def test_two_readers_of_one_quiz_get_the_same_steps() -> None:
    engine = MemoEngine(get_engine())
    fresh = list(get_engine().steps(QUIZ.tokens, QUIZ.scored))
    first, second = engine.steps(QUIZ.tokens, QUIZ.scored), engine.steps(QUIZ.tokens, QUIZ.scored)
    assert [next(first), next(second), next(second), next(first)] == [fresh[0], fresh[0], fresh[1], fresh[1]]
    assert (list(first), list(second)) == (fresh[2:], fresh[2:])


def test_only_so_many_quizzes_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(poai_spec.proof.work, "MAX_REMEMBERED", 2)
    counting = CountingEngine(get_engine())
    engine = MemoEngine(counting)
    for first in (1, 2, 3, 2, 1):
        list(engine.steps((first, *QUIZ.tokens[1:]), QUIZ.scored))
        assert len(engine.known) <= 2
    assert counting.steps_taken == 4 * (LAYERS + 1), "1, 2 and 3 are computed, 2 is remembered, 1 was forgotten"
