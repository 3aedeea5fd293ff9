"""Vectors of the page `llama-profile`: from float logits to losses and the trace entry, and whole passes."""

from collections.abc import Mapping
from typing import Any

from poai_spec.basics.drbg import Drbg
from poai_spec.basics.notation import uint32_le
from poai_spec.basics.parameters import make_config
from poai_spec.chain.upgrades import get_rules
from poai_spec.model.llama_profile import compute_logits_entry, round_logit, score_logits
from poai_spec.model.loss import compute_trace_digest
from poai_spec.proof.lexicon import read_lexicon
from poai_spec.proof.quiz import generate_quiz
from poai_tools.vectors import llama
from poai_tools.vectors.cases import Case, CaseFile, derive, derive_seed
from poai_tools.vectors.defects import make_negative
from poai_tools.vectors.kinds import HASH32, INT32, UINT32, UINT64, Array, Hex, RecordKind, Text, require
from poai_tools.vectors.network import get_manifest
from poai_tools.vectors.registry import Function, register

SUITE = "llama_profile"
ROW = Hex(2**14, exact=False)


def _check_rows(rows: tuple[bytes, ...]) -> tuple[bytes, ...]:
    require(all(row and len(row) % 4 == 0 for row in rows), "rows: each one or more floats of 4 bytes")
    return rows


def _score(i: Mapping[str, Any]) -> dict[str, Any]:
    rows, targets = _check_rows(i["rows"]), i["targets"]
    require(len(targets) == len(rows), "targets: one a row")
    require(all(t < len(row) // 4 for t, row in zip(targets, rows, strict=True)), "targets: no such token")
    evaluation = score_logits(rows, targets)
    return {"nlls": evaluation.nlls, "loss": evaluation.loss, "trace": evaluation.trace}


def _run(model: str, tokens: tuple[int, ...], scored: tuple[int, ...], fingerprint: dict[str, str]) -> dict[str, Any]:
    found = llama.run(model, tokens, scored, fingerprint)
    digest = compute_trace_digest(found.trace)
    return {"nlls": found.nlls, "loss": found.loss, "trace": found.trace, "trace_digest": digest}


ROUND_LOGIT = register(
    Function(
        suite=SUITE,
        name="round_logit",
        page="llama-profile",
        summary="each float32, given by its bits, in Q16: rounded to nearest, halves up, saturated to int32",
        input=RecordKind({"bits": Array(UINT32)}),
        output=RecordKind({"logits": Array(INT32)}),
        run=lambda i: {"logits": [round_logit(bits) for bits in i["bits"]]},
    )
)
COMPUTE_LOGITS_ENTRY = register(
    Function(
        suite=SUITE,
        name="compute_logits_entry",
        page="llama-profile",
        summary="the only trace entry, from the rows of logits as little-endian float32",
        input=RecordKind({"rows": Array(ROW)}),
        output=RecordKind({"entry": HASH32}),
        run=lambda i: {"entry": compute_logits_entry(_check_rows(i["rows"]))},
    )
)
SCORE_LOGITS = register(
    Function(
        suite=SUITE,
        name="score_logits",
        page="llama-profile",
        summary="losses (bits in Q16), their sum and the trace, from a row of logits and a token each",
        input=RecordKind({"rows": Array(ROW), "targets": Array(UINT32)}),
        output=RecordKind({"nlls": Array(UINT64), "loss": UINT64, "trace": Array(HASH32)}),
        run=_score,
    )
)
RUN = register(
    Function(
        suite=SUITE,
        name="run",
        page="llama-profile",
        summary="a whole pass; a client answers only with the build and on a machine that the fingerprint describes",
        input=RecordKind(
            {
                "model": Text(llama.MODELS),
                "tokens": Array(UINT32, 1),
                "scored": Array(UINT32, 1),
                "fingerprint": llama.FINGERPRINT,
            }
        ),
        output=RecordKind({"nlls": Array(UINT64), "loss": UINT64, "trace": Array(HASH32), "trace_digest": HASH32}),
        run=lambda i: _run(**i),
    )
)
HOW = "Chosen bits; `drawn-*`: bits below 2^32 of the id's DRBG, those of NaNs and infinities less 2^23."
FLAGS = {
    "saturates": ("a logit outside int32 in Q16", "a client that converts it by its language's cast gives anything"),
    "halves": ("a logit halfway between two integers in Q16", "a client that rounds to even or away from 0 differs"),
    "nan": ("a logit that is not a number", "a client that scores it gives a loss that depends on its machine"),
}


def make_files() -> list[CaseFile]:
    """Return the case files of the suite."""
    return [_round_logit(), _logits_entry(), _score_logits(), _runs()]


def _draw_bits(drbg: Drbg, count: int) -> list[int]:
    drawn = (drbg.below(2**32) for _ in range(count))
    return [bits if bits & 0x7F800000 != 0x7F800000 else bits - 0x00800000 for bits in drawn]


def _round_logit() -> CaseFile:
    chosen: dict[str, tuple[str, list[int], tuple[str, ...]]] = {
        "plain": ("0, -0, 1, -1, 1/3, 100", [0, 0x80000000, 0x3F800000, 0xBF800000, 0x3EAAAAAB, 0x42C80000], ()),
        "subnormal": ("the smallest and the largest", [1, 0x80000001, 0x007FFFFF, 0x807FFFFF], ()),
        "halves": (
            "odd multiples of 2^-17, and their neighbours",
            [0x37000000, 0xB7000000, 0x37C00000, 0xB7C00000, 0x36FFFFFF, 0xB6FFFFFF, 0x37000001, 0xB7000001],
            ("halves",),
        ),
        "ends": (
            "the largest below 2^15, 2^15, and the same below 0",
            [0x46FFFFFF, 0x47000000, 0xC6FFFFFF, 0xC7000000, 0xC7000001],
            ("saturates",),
        ),
        "huge": ("the largest finite numbers and the infinities", [0x7F7FFFFF, 0xFF7FFFFF, 0x7F800000, 0xFF800000],
                 ("saturates",)),
    }  # fmt: skip
    cases = {name: Case(name, comment, {"bits": bits}, flags) for name, (comment, bits, flags) in chosen.items()}
    drawn = _draw_bits(derive(SUITE, "drawn"), 64)
    base, bits = cases["plain"], chosen["plain"][1]
    nans = [
        make_negative(ROUND_LOGIT, base, f"nan-{nan:x}", "not a number", {"bits": [*bits[:-1], nan]}, ("nan",))
        for nan in (0x7F800001, 0x7FC00000, 0xFF800001, 0xFFFFFFFF)
    ]
    return CaseFile(ROUND_LOGIT, HOW, (*cases.values(), Case("drawn", "64 floats", {"bits": drawn}), *nans), FLAGS)


def _row(*bits: int) -> bytes:
    return b"".join(map(uint32_le, bits))


def _list_rows() -> dict[str, tuple[str, list[bytes], list[int]]]:
    """Return (comment, rows, targets) by case id."""
    drbg = derive(SUITE, "drawn-rows")
    scale = [0x3F800000 | bits & 0x80FFFFFF for bits in _draw_bits(drbg, 3 * 16)]  # magnitudes of 1 to 4
    drawn = [_row(*scale[16 * n : 16 * n + 16]) for n in range(3)]
    return {
        "equal": ("two equal logits: 1 bit", [bytes(8)], [0]),
        "one-token": ("a vocabulary of one token: no loss", [_row(0xC0000000)], [0]),
        "likely": ("the most and the least likely token", [_row(0x40400000, 0, 0xBF800000)] * 2, [0, 2]),
        "infinite": ("infinities saturate", [_row(0x7F800000, 0, 0xFF800000)] * 2, [0, 2]),
        "nothing-scored": ("no rows", [], []),
        "drawn-rows": ("three rows of 16, magnitudes of 1 to 4", drawn, [5, 15, 0]),
    }


def _logits_entry() -> CaseFile:
    rows = _list_rows()
    cases = [Case(name, comment, {"rows": logits}) for name, (comment, logits, _) in rows.items() if name != "likely"]
    cases.append(Case("minus-zero", "hashed as it is", {"rows": [_row(0x80000000, 0)]}))
    cases.append(Case("nan", "hashed as it is: only scoring refuses it", {"rows": [_row(0x7FC00000, 0)]}))
    return CaseFile(COMPUTE_LOGITS_ENTRY, HOW, tuple(cases))


def _score_logits() -> CaseFile:
    cases = {
        name: Case(name, comment, {"rows": rows, "targets": targets}, ("saturates",) if name == "infinite" else ())
        for name, (comment, rows, targets) in _list_rows().items()
    }
    likely = cases["likely"]
    bad = [*likely.input["rows"][:1], _row(0x40400000, 0x7FC00000, 0xBF800000)]
    nan = make_negative(SCORE_LOGITS, likely, "nan", "in the second row, not the target", {"rows": bad}, ("nan",))
    used = {name: FLAGS[name] for name in ("saturates", "nan")}
    return CaseFile(SCORE_LOGITS, HOW, (*cases.values(), nan), used)


def _runs() -> CaseFile:
    cases = []
    for model, preset in zip(llama.MODELS, ("minimal", "testnet"), strict=True):
        manifest = get_manifest(model)
        config, lexicon = make_config(preset, manifest), read_lexicon(model)
        inputs: dict[str, tuple[str, tuple[int, ...], tuple[int, ...]]] = {}
        for n in range(3):
            quiz = generate_quiz(derive_seed(SUITE, f"{model}-quiz-{n}"), get_rules(config, (), 0), lexicon)
            inputs[f"{model}-quiz-{n}"] = (f"a quiz of {preset}", quiz.tokens, quiz.scored)
        drbg = derive(SUITE, f"{model}-short")
        short = tuple(drbg.below(manifest.vocabulary_size) for _ in range(7))
        inputs[f"{model}-short"] = ("seven tokens, all but the first scored", short, tuple(range(1, 7)))
        for name, (comment, tokens, scored) in inputs.items():
            given = {"model": model, "tokens": tokens, "scored": scored, "fingerprint": llama.MADE_ON}
            cases.append(Case(name, comment, given))
    how = "Quizzes of the pinned lexicons; tokens drawn by the DRBG. The fingerprint is the maker's build and machine."
    return CaseFile(RUN, how, tuple(cases))
