"""The exact engine and the array engine equal the specification bit for bit: weights, every layer, scores, traces."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from poai_engine.engines.array import ArrayEngine
from poai_engine.engines.exact import ExactEngine, compute_nlls
from poai_engine.engines.reference import ReferenceEngine
from poai_engine.models.decode import decode_rows
from poai_engine.models.exact_model import quantise_weights, transform_weights
from poai_engine.models.gguf_file import read_gguf
from poai_spec.basics.notation import Invalid
from poai_spec.model import inference
from poai_spec.model.engine import Evaluation
from poai_spec.model.fixed_point import walsh_hadamard
from poai_spec.model.integer_model import quantise_matrix
from poai_spec.model.weights import TENSOR_TYPES, Float32, GgufFile, GgufTensor, decode_tensor
from tests.harness.tiny_models import batches, float32, random_tensor, tiny_models

relaxed = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


@pytest.mark.parametrize("kind", TENSOR_TYPES)
@pytest.mark.parametrize("loudness", ["quiet", "normal", "loud", "mixed"])
def test_decoding_of_every_type(kind: str, loudness: str) -> None:
    tensor = random_tensor(np.random.default_rng(1), "t", kind, (7, 512), loudness)
    assert decode_rows(tensor, 0, 7).tolist() == decode_tensor(tensor)
    assert decode_rows(tensor, 2, 5).tolist() == decode_tensor(tensor)[2:5]


@given(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=40))
def test_decoding_of_any_float32(bits: list[int]) -> None:
    tensor = GgufTensor("t", "F32", (len(bits),), np.asarray(bits, "<u4").tobytes())
    try:
        expected = decode_tensor(tensor)[0]
    except Invalid as error:
        with pytest.raises(Invalid, match=error.code):
            decode_rows(tensor, 0, 1)
        return
    for ours, theirs in zip(decode_rows(tensor, 0, 1)[0].tolist(), expected, strict=True):
        assert ours == theirs or (abs(ours) >= 2**61 and abs(theirs) >= 2**61 and (ours > 0) == (theirs > 0))


@pytest.mark.parametrize("kind", [k for k in TENSOR_TYPES if k not in ("F32", "BF16")])
@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=20, deadline=None)
def test_decoding_of_any_block(kind: str, seed: int) -> None:
    elements, size, _ = TENSOR_TYPES[kind]
    data = np.random.default_rng(seed).integers(0, 256, 4 * size, dtype=np.uint8).tobytes()
    tensor = GgufTensor("t", kind, (4, elements), data)
    try:
        expected = decode_tensor(tensor)
    except Invalid as error:
        with pytest.raises(Invalid, match=error.code):
            decode_rows(tensor, 0, 4)
        return
    assert decode_rows(tensor, 0, 4).tolist() == expected


@given(st.lists(st.lists(st.integers(-(2**38) + 1, 2**38 - 1), min_size=3, max_size=3), min_size=1, max_size=5))
def test_quantised_weights(rows: list[list[int]]) -> None:
    v = transform_weights(np.asarray(rows, np.int64))
    assert v.tolist() == [list(walsh_hadamard(row)) for row in rows]
    assert quantise_weights(v, np.abs(v).max(axis=1)).tolist() == [list(r) for r in quantise_matrix("t", rows).rows]


@given(st.lists(st.integers(-(2**31), 2**31 - 1), min_size=2, max_size=20), st.integers(0, 1))
@settings(deadline=None)  # the first call may compile
def test_nll(logits: list[int], target: int) -> None:
    expected = inference.compute_nll(tuple(logits), target)
    assert compute_nlls(np.asarray([logits], np.int32), np.asarray([target])) == [expected]
    assert expected >= 0


def run_layer_by_layer(gguf: GgufFile, tokens: list[int], threads: int) -> None:
    """Compare the residual stream of every position after every block."""
    spec, exact, array = ReferenceEngine(gguf), ExactEngine(gguf, threads), ArrayEngine(gguf, 1)
    assert exact.integer_model_root == array.integer_model_root == spec.integer_model_root
    rows = [spec.model.embedding[token] for token in tokens]
    residuals = zip(spec.model.layers, exact.residuals(tokens), array.residuals([tokens]), strict=True)
    for number, (layer, ours, theirs) in enumerate(residuals):
        rows = inference.run_block(spec.model, layer, rows)
        assert ours.tolist() == [list(row) for row in rows], f"block {number} differs"
        assert theirs[0].tolist() == [list(row) for row in rows], f"block {number} differs in the array engine"
    found = exact.logits(tokens, range(len(tokens))), array.logits(tokens, range(len(tokens)))
    for row, ours, theirs in zip(rows, *found, strict=True):
        normed = inference.rms_norm(row, spec.model.output_norm, spec.model.architecture.epsilon)
        assert inference.linear(spec.model.head, normed) == tuple(ours.tolist()) == tuple(theirs.tolist())


def check_every_layer(gguf: GgufFile, data: st.DataObject) -> None:
    vocabulary = gguf.tensors["token_embd.weight"].shape[0]
    tokens = data.draw(st.lists(st.integers(0, vocabulary - 1), min_size=1, max_size=12))
    run_layer_by_layer(gguf, tokens, data.draw(st.integers(1, 3)))


@given(tiny_models(), st.data())
@settings(relaxed, max_examples=15)
def test_every_layer_of_random_models(gguf: GgufFile, data: st.DataObject) -> None:
    check_every_layer(gguf, data)


@pytest.mark.slow
@given(tiny_models(), st.data())
@settings(relaxed, max_examples=150)
def test_every_layer_of_many_random_models(gguf: GgufFile, data: st.DataObject) -> None:
    check_every_layer(gguf, data)


def check_evaluations(gguf: GgufFile, data: st.DataObject) -> None:
    tokens, scored = data.draw(batches(gguf))
    spec, exact = ReferenceEngine(gguf), ExactEngine(gguf, data.draw(st.integers(1, 3)))
    expected = spec.evaluate(tokens, scored)
    assert exact.evaluate(tokens, scored) == ArrayEngine(gguf, 1).evaluate(tokens, scored) == expected
    assert [exact.evaluate([t], [s])[0] for t, s in zip(tokens, scored, strict=True)] == expected
    steps = list(exact.steps(tokens[0], scored[0]))
    assert steps == list(spec.steps(tokens[0], scored[0]))
    assert isinstance(steps[-1], Evaluation)
    assert list(steps[-1].trace[:-1]) == steps[:-1]


@given(tiny_models(), st.data())
@settings(relaxed, max_examples=6)
def test_evaluations_alone_in_batches_and_stepwise(gguf: GgufFile, data: st.DataObject) -> None:
    check_evaluations(gguf, data)


@pytest.mark.slow
@given(tiny_models(), st.data())
@settings(relaxed, max_examples=60)
def test_many_evaluations_alone_in_batches_and_stepwise(gguf: GgufFile, data: st.DataObject) -> None:
    check_evaluations(gguf, data)


@given(tiny_models(), st.data())
@settings(relaxed, max_examples=60)
def test_sequences_of_different_lengths(gguf: GgufFile, data: st.DataObject) -> None:
    vocabulary = gguf.tensors["token_embd.weight"].shape[0]
    tokens = data.draw(st.lists(st.lists(st.integers(0, vocabulary - 1), min_size=1, max_size=20), max_size=5))
    scored = [data.draw(st.sets(st.integers(1, len(ids) - 1)).map(sorted)) if len(ids) > 1 else [] for ids in tokens]
    engine = ExactEngine(gguf, data.draw(st.integers(1, 3)))
    alone = [engine.evaluate([ids], [positions])[0] for ids, positions in zip(tokens, scored, strict=True)]
    assert engine.evaluate(tokens, scored) == alone


@given(tiny_models(), st.data())
@settings(relaxed, max_examples=30)
def test_a_prefix_does_not_see_what_follows(gguf: GgufFile, data: st.DataObject) -> None:
    vocabulary = gguf.tensors["token_embd.weight"].shape[0]
    tokens = data.draw(st.lists(st.integers(0, vocabulary - 1), min_size=2, max_size=8))
    cut = data.draw(st.integers(1, len(tokens) - 1))
    engine = ExactEngine(gguf, 1)
    for whole, prefix in zip(engine.residuals(tokens), engine.residuals(tokens[:cut]), strict=True):
        assert np.array_equal(whole[:cut], prefix)


def test_saturation_is_counted_and_agrees() -> None:
    """Values at the ends of int32 saturate alike, and the counter sees them."""
    loud = np.random.default_rng(3)
    shapes = {"token_embd": (4, 4), "blk.0.attn_q": (4, 4), "blk.0.attn_k": (4, 4), "blk.0.attn_v": (4, 4),
              "blk.0.attn_output": (4, 4), "blk.0.ffn_gate": (6, 4), "blk.0.ffn_up": (6, 4),
              "blk.0.ffn_down": (4, 6)}  # fmt: skip
    tensors = {f"{n}.weight": random_tensor(loud, f"{n}.weight", "F32", s, "loud") for n, s in shapes.items()}
    gains = np.full(4, 127.0, "<f4").tobytes()
    for n in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
        tensors[f"{n}.weight"] = GgufTensor(f"{n}.weight", "F32", (4,), gains)
    metadata: dict[str, int | bool | str | Float32] = {
        "general.architecture": "llama",
        "llama.block_count": 1,
        "llama.embedding_length": 4,
        "llama.feed_forward_length": 6,
        "llama.attention.head_count": 2,
        "llama.attention.layer_norm_rms_epsilon": float32(1e-5),
    }
    gguf = GgufFile(metadata, tensors)
    engine = ArrayEngine(gguf, count_saturations=True)
    expected = ReferenceEngine(gguf).evaluate([[0, 1, 2, 3]], [[1, 3]])
    assert engine.evaluate([[0, 1, 2, 3]], [[1, 3]]) == ExactEngine(gguf).evaluate([[0, 1, 2, 3]], [[1, 3]]) == expected
    assert engine.saturations is not None
    assert all(engine.saturations[name] > 0 for name in ("linear", "rotated", "attn_v", "residual"))


def test_refusals_are_those_of_the_page() -> None:
    with pytest.raises(Invalid, match="integer-model/architecture"):
        ExactEngine(GgufFile({}, {}))


# Decoding.


@given(tiny_models(), st.data())
@settings(relaxed, max_examples=60)
def test_decoding_is_the_pass_in_pieces(gguf: GgufFile, data: st.DataObject) -> None:
    """Sequences of any lengths, extended in any pieces and any order: each piece's last logits are the prefill's."""
    vocabulary = gguf.tensors["token_embd.weight"].shape[0]
    ids = st.lists(st.integers(0, vocabulary - 1), min_size=1, max_size=14)
    sequences = data.draw(st.lists(ids, min_size=1, max_size=4))
    engine = ExactEngine(gguf, data.draw(st.integers(1, 3)))
    whole = [engine.logits(ids, range(len(ids))) for ids in sequences]
    cache = engine.make_cache(len(sequences), max(map(len, sequences)))
    while cache.lengths != [len(ids) for ids in sequences]:
        rest = [ids[done:] for ids, done in zip(sequences, cache.lengths, strict=True)]
        pieces = [part[: data.draw(st.sampled_from([0, 1, 1, 3, 14]))] for part in rest]
        if not any(pieces):
            pieces = [part[:1] for part in rest]
        found = iter(engine.extend(cache, pieces))
        for n, piece in enumerate(pieces):
            if piece:
                assert np.array_equal(next(found), whole[n][cache.lengths[n] - 1])
        assert next(found, None) is None


def test_a_cache_has_its_capacity(mini_path: Path) -> None:
    engine = ExactEngine(read_gguf(mini_path), 1)
    cache = engine.make_cache(2, 3)
    engine.extend(cache, [[1, 2, 3], []])
    beyond: list[list[list[int]]] = [[[4], []], [[], [1, 2, 3, 4]], [[], []]]
    for tokens in beyond:
        with pytest.raises(ValueError, match="more than 3"):
            engine.extend(cache, tokens)
    assert cache.lengths == [3, 0]


def test_a_prompt_of_more_rows_than_a_chunk(mini_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("poai_engine.engines.exact.CHUNK_ROWS", 8)
    engine = ExactEngine(read_gguf(mini_path), 2)
    tokens = [[(7 * n) % 900 for n in range(21)], [5, 6, 7]]
    found = engine.extend(engine.make_cache(2, 24), tokens)
    for logits, ids in zip(found, tokens, strict=True):
        assert np.array_equal(logits, engine.logits(ids, [len(ids) - 1])[0])
