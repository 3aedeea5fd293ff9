"""`poai network`: make and show network files."""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from poai_bench.flags import MAX_QUIZ_TOKENS
from poaid.errors import NodeError

if TYPE_CHECKING:
    from poai_spec.basics.parameters import Config

app = typer.Typer(help="Make and show networks.", no_args_is_help=True)

UINT64 = 2**64 - 1  # what the encoding of a config holds


class Profile(StrEnum):
    """The arithmetics."""

    w8a8 = "w8a8"
    llama_cpp = "llama.cpp"


# Flags of a new network that an upgrade may change, too.
RetargetBlocks = Annotated[int | None, typer.Option(min=1, max=UINT64, help="Blocks in a difficulty period.")]
Spacing = Annotated[int | None, typer.Option(min=1, max=UINT64, help="Intended time between blocks, ms.")]
MaxFuture = Annotated[int | None, typer.Option(min=0, max=UINT64, help="How far a stamp may lie ahead, ms.")]
QuizTokens = Annotated[int | None, typer.Option(min=1, max=MAX_QUIZ_TOKENS, help="Tokens of a quiz.")]
SaltTokens = Annotated[int | None, typer.Option(min=0, max=MAX_QUIZ_TOKENS, help="Random tokens at its start.")]
ScoredTokens = Annotated[int | None, typer.Option(min=1, max=MAX_QUIZ_TOKENS, help="Positions whose loss counts.")]


@app.command()
def new(
    output: Annotated[Path, typer.Argument(help="The TOML file to write.", metavar="FILE")] = Path("network.toml"),
    base: Annotated[str, typer.Option("--from", help="Preset or network file to begin with.")] = "testnet",
    model: Annotated[str | None, typer.Option(help="mini, smollm2, tinyllama, or the path of a GGUF file.")] = None,
    target: Annotated[str | None, typer.Option(help="Initial target: 1..1000 thousandths, or 0x...")] = None,
    profile: Annotated[
        Profile | None, typer.Option(help="How logits are computed; llama.cpp is for equal machines only.")
    ] = None,
    test_corpus: Annotated[
        Path | None, typer.Option(help="Folder of *.txt files, a line question<TAB>answer each: the quizzes' source.")
    ] = None,
    epoch_blocks: Annotated[int | None, typer.Option(min=1, max=UINT64, help="Blocks in an epoch.")] = None,
    retarget_blocks: RetargetBlocks = None,
    spacing: Spacing = None,
    max_future: MaxFuture = None,
    quiz_tokens: QuizTokens = None,
    salt_tokens: SaltTokens = None,
    scored_tokens: ScoredTokens = None,
    genesis_timestamp: Annotated[
        int | None, typer.Option(min=0, max=UINT64, help="Stamp of genesis, ms since 1970.")
    ] = None,
    bootstrap: Annotated[
        list[str] | None, typer.Option(help="Peer to begin with, /ip4/.../tcp/.../p2p/...; repeat for more.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file.")] = False,
) -> None:
    """Write a network file: a preset with some of its numbers changed.

    Without --max-future the clock limit shrinks with the period, to the tenth that the time-warp bound allows.
    """
    from poai_spec.basics.parameters import compute_network_id
    from poaid.network_file import (
        SIDE_FILES,
        check_multiaddr,
        check_network,
        get_network,
        parse_target,
        with_corpus,
        write_network,
    )

    written = [output, *(output.with_name(output.stem + suffix) for suffix in SIDE_FILES)]
    if not force and (there := next(filter(Path.exists, written), None)):
        raise NodeError(f"{there} exists: give another name, or --force to overwrite it")
    network = get_network(base, model, parse_target(target) if target is not None else None)
    changes: dict[str, Any] = {
        "profile": profile.value.encode() if profile is not None else None,
        "epoch_blocks": epoch_blocks,
        "retarget_blocks": retarget_blocks,
        "spacing": spacing,
        "max_future": max_future,
        "quiz_tokens": quiz_tokens,
        "salt_tokens": salt_tokens,
        "scored_tokens": scored_tokens,
        "genesis_timestamp": genesis_timestamp,
    }
    config = replace(network.config, **{key: value for key, value in changes.items() if value is not None})
    if max_future is None:
        config = replace(config, max_future=min(config.max_future, _largest_max_future(config)))
    peers = tuple(check_multiaddr(text, "--bootstrap") for text in bootstrap or ()) or network.bootstrap
    network = replace(network, config=config, bootstrap=peers)
    if test_corpus is not None:
        network = with_corpus(network, test_corpus, model)
    write_network(check_network(network), output)
    print(f"{output}: network {compute_network_id(network.config).hex()}")


def _largest_max_future(config: Config) -> int:
    from poai_spec.basics.parameters import MAX_FUTURE_SHARE

    return config.retarget_blocks * config.spacing // MAX_FUTURE_SHARE


@app.command()
def show(network: Annotated[str, typer.Argument(help="Preset or network file.")]) -> None:
    """Print a network as TOML, and its id."""
    from poai_spec.basics.parameters import compute_network_id
    from poaid.network_file import format_network, get_network

    found = get_network(network)
    print(format_network(found), end="")
    print(f"# network id {compute_network_id(found.config).hex()}")


@app.command()
def upgrade(
    file: Annotated[Path, typer.Argument(help="The TOML file to change.", metavar="FILE")],
    at: Annotated[int, typer.Option(min=1, max=UINT64, help="Height of the first block that the change holds for.")],
    model: Annotated[str | None, typer.Option(help="mini, smollm2, tinyllama, or the path of a GGUF file.")] = None,
    profile: Annotated[Profile | None, typer.Option(help="How logits are computed.")] = None,
    retarget_blocks: RetargetBlocks = None,
    spacing: Spacing = None,
    max_future: MaxFuture = None,
    quiz_tokens: QuizTokens = None,
    salt_tokens: SaltTokens = None,
    scored_tokens: ScoredTokens = None,
) -> None:
    """Add an upgrade to the end of a network file's list: what changes, and from which height on.

    The network id stays. Every node of the network needs the new file before that height.
    """
    from poai_spec.basics.parameters import compute_network_id
    from poai_spec.chain.upgrades import get_multiplications
    from poaid.network_file import check_network, plan_upgrade, read_network, write_network

    values: dict[str, Any] = {
        "profile": None if profile is None else profile.value.encode(),
        "retarget_blocks": retarget_blocks,
        "spacing": spacing,
        "max_future": max_future,
        "quiz_tokens": quiz_tokens,
        "salt_tokens": salt_tokens,
        "scored_tokens": scored_tokens,
    }
    given = {key: value for key, value in values.items() if value is not None}
    network = plan_upgrade(check_network(read_network(file)), at, model, **given)
    write_network(network, file)
    before, after = network.list_rules()[-2:]
    print(f"{file}: network {compute_network_id(network.config).hex()}, upgrade {len(network.planned)} at height {at}")
    ratio = get_multiplications(after) / get_multiplications(before)
    print(f"a quiz takes {get_multiplications(after):,} multiplications from there on, {ratio:.4g} times as many")
