"""Networks: presets, files and flags; what is odd is refused in one line before it means anything."""

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from poai_engine.models.lexicon_maker import format_lexicon
from poai_engine.models.model_names import MANIFESTS
from poai_engine.models.model_store import resolve_model
from poai_spec.basics.encoding import decode, encode
from poai_spec.basics.notation import Invalid, SpecError
from poai_spec.basics.parameters import Config, ModelManifest, TokenRange, compute_network_id, read_manifest
from poai_spec.proof.lexicon import Lexicon, compute_lexicon_digest, read_lexicon
from poaid.errors import NodeError, UsageError
from poaid.network_file import (
    Network,
    check_network,
    format_network,
    get_network,
    parse_target,
    read_network,
    write_network,
)

UINT256_MAX = 2**256 - 1


@pytest.fixture(scope="module")
def text(network: Network) -> str:
    return format_network(network)


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str | bytes], Path]:
    """Write a network file."""

    def call(content: str | bytes) -> Path:
        path = tmp_path / "net.toml"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return call


def refuse(path: Path) -> str:
    with pytest.raises(NodeError) as caught:
        read_network(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# There and back


@pytest.mark.parametrize("name", ["testnet", "minimal", "local"])
def test_presets_survive_a_file(name: str, tmp_path: Path) -> None:
    network = get_network(name)
    write_network(network, tmp_path / "copy.toml")
    assert get_network(str(tmp_path / "copy.toml")) == replace(network, name="copy")
    assert [path.name for path in tmp_path.iterdir()] == ["copy.toml"]


def test_mainnet_waits_for_its_model() -> None:
    with pytest.raises(Invalid, match="parameters/model-unpinned"):
        get_network("mainnet")
    assert get_network("mainnet", "mini").config.spacing == 600_000


def test_a_custom_network_survives_a_file(network: Network, tmp_path: Path) -> None:
    write_network(network, tmp_path / "net.toml")
    again = read_network(tmp_path / "net.toml")
    assert again == replace(network, name="net")
    assert compute_network_id(again.config) == compute_network_id(network.config)


def test_the_largest_numbers_survive_a_file(network: Network, tmp_path: Path) -> None:
    wide = {"epoch_blocks", "retarget_blocks", "spacing", "max_future", "genesis_timestamp"}
    largest = {f.name: 2**64 - 1 if f.name in wide else 2**32 - 1 for f in fields(Config) if f.type is int}
    largest |= {"max_target": UINT256_MAX, "initial_target": UINT256_MAX}
    odd = replace(network, config=replace(network.config, **largest))  # type: ignore[arg-type]
    write_network(odd, tmp_path / "net.toml")
    found = read_network(tmp_path / "net.toml").config
    assert found == odd.config
    assert decode(Config, encode(found)) == found
    with pytest.raises(Invalid, match="parameters/version"):
        check_network(odd)


def make_unpinned(network: Network) -> Network:
    """Return the network with a model that nobody has pinned: mini's pieces under other ids."""
    assert isinstance(network.questions, Lexicon)
    lexicon = Lexicon({piece: tuple(904 - token for token in ids) for piece, ids in network.questions.ids.items()})
    model = replace(
        network.config.model,
        gguf_sha256=b"\x01" * 32,
        questions_digest=compute_lexicon_digest(lexicon),
        salt_ranges=(TokenRange(0, 5), TokenRange(7, 100)),
        add_bos=False,
        bos_id=0,
    )
    config = replace(network.config, model=model)
    return check_network(Network("unpinned", config, lexicon, "ab" * 32))


@pytest.mark.parametrize("name", ["net.toml", "net", 'odd " name \\.toml', "größer.toml"])
def test_the_lexicon_of_an_unpinned_model_lies_beside_the_file(network: Network, tmp_path: Path, name: str) -> None:
    unpinned, path = make_unpinned(network), tmp_path / "a" / name
    path.parent.mkdir()
    write_network(unpinned, path)
    stem = Path(name).stem
    assert sorted(file.name for file in path.parent.iterdir()) == sorted([name, f"{stem}.lexicon.json"])
    found = get_network(str(path))
    assert found == replace(unpinned, name=stem, questions_name=f"{stem}.lexicon.json")
    (tmp_path / "a").rename(tmp_path / "moved")  # both files go together
    assert get_network(str(tmp_path / "moved" / name)) == found


def test_a_lexicon_that_is_not_the_networks(network: Network, tmp_path: Path) -> None:
    write_network(make_unpinned(network), tmp_path / "net.toml")
    lexicon = tmp_path / "net.lexicon.json"
    lexicon.write_text(format_lexicon("other", read_lexicon("mini")), "utf-8")
    with pytest.raises(Invalid, match="lexicon/digest"):
        get_network(str(tmp_path / "net.toml"))
    lexicon.write_bytes(b"{")
    with pytest.raises(SpecError, match="lexicon/"):
        get_network(str(tmp_path / "net.toml"))
    lexicon.write_bytes(bytes(2 << 20))
    assert "is larger than" in refuse(tmp_path / "net.toml")
    lexicon.unlink()
    assert "cannot be read: No such file or directory" in refuse(tmp_path / "net.toml")
    lexicon.mkdir()
    assert "cannot be read: Is a directory" in refuse(tmp_path / "net.toml")


@pytest.mark.parametrize("name", ["../net.json", "/etc/passwd", "a/b", ".", "..", "", "\\u0000", "a\\nb"])
def test_a_lexicon_elsewhere_is_refused(text: str, write: Callable[[str], Path], name: str) -> None:
    message = refuse(write(text.replace('lexicon = "mini"', f'lexicon = "{name}"')))
    expected = "Is a directory" if name in ("", "..") else "neither a pinned one nor the name of a file beside it"
    assert expected in message


# Files that are none


def cases(text: str) -> dict[str, tuple[str | bytes, str]]:
    """Return files and what is said of them."""
    lines = text.splitlines()
    keys = [line.partition(" = ")[0] for line in lines if " = " in line]
    model_at = lines.index("[model]")
    found: dict[str, tuple[str | bytes, str]] = {}

    def put(key: str, value: str) -> str:
        return "\n".join(f"{key} = {value}" if line.startswith(f"{key} = ") else line for line in lines)

    for key in keys:
        without = "\n".join(line for line in lines if not line.startswith(f"{key} = "))
        found[f"no {key}"] = (without, "needs lexicon" if key == "lexicon" else f"missing key '{key}'")
        found[f"{key} twice"] = (put(key, f"1\n{key} = 1"), "is not TOML: Cannot overwrite a value")
        for value in (
            "1.0",
            "[1]",
            "{a = 1}",
            "2026-01-01",
            "nan",
            "-1",
            "true",
            '""',
            '"zz"',
            '"0x12"',
            "[[1, 2, 3]]",
        ):
            if (key in ("add_bos", "corpus") and value == "true") or (key, value) in {("profile", '"zz"')}:
                continue
            if value in ('""', '"zz"', '"0x12"') and key in ("profile", "lexicon", "max_target", "initial_target"):
                continue  # of the right type: what is wrong with them is said by the checks of a network
            message = "needs lexicon" if key == "lexicon" else f"{key} = "
            found[f"{key} = {value}"] = (put(key, value), message)
        if key in ("version", "quiz_tokens", "layer_count", "bos_id"):
            found[f"{key} too big"] = (put(key, str(2**32)), "expected an integer of 32 bits")
        if key in ("epoch_blocks", "spacing", "genesis_timestamp"):
            found[f"{key} too big"] = (put(key, str(2**64 - 1) + "0"), "expected an integer of 64 bits")
            found[f"{key} as a hash"] = (put(key, '"0x' + "11" * 32 + '"'), f"{key} = '0x11")
        if key in ("gguf_sha256", "genesis_seed"):
            found[f"{key} as a number"] = (put(key, "5"), f"{key} = 5")
            found[f"{key} too long"] = (put(key, '"' + "11" * 33 + '"'), "expected 32 bytes")
        if key == "max_target":
            found[f"{key} too big"] = (put(key, f'"{2**256:#x}"'), "expected an integer of 256 bits")
            found[f"{key} no hex"] = (put(key, '"zz"'), "max_target = 'zz'")
            found[f"{key} below zero"] = (put(key, '"-0x1"'), "max_target = '-0x1'")
    found["profile not ASCII"] = (put("profile", '"ä"'), "profile = 'ä'")
    found["salt range of texts"] = (put("salt_ranges", '[["1", "2"]]'), "salt_ranges = ")
    found["salt range of flags"] = (put("salt_ranges", "[[true, false]]"), "salt_ranges = ")
    found["salt range as text"] = (put("salt_ranges", '"ab"'), "salt_ranges = ")
    found["unknown key"] = ("odd = 1\n" + text, "unknown key 'odd'")
    found["unknown key of the model"] = (text + "odd = 1\n", "[model]: unknown key 'odd'")
    found["another table"] = (text + "[odd]\n", "unknown key 'odd'")
    found["no model"] = ("\n".join(lines[:model_at]), "needs lexicon")
    found["the model is a number"] = ("model = 5\n" + "\n".join(lines[:model_at]), "needs lexicon")
    found["nothing"] = ("", "needs lexicon")
    found["no TOML"] = ("this is no network", "is not TOML")
    found["cut"] = (text[: len(text) // 2], "")
    found["binary"] = (bytes(range(256)), "is not TOML")
    found["zeros"] = (bytes(1_000), "is not TOML")
    found["JSON"] = ('{"version": 1}', "is not TOML")
    found["UTF-16"] = (text.encode("utf-16"), "is not TOML")
    found["nested"] = ("a = " + "[" * 100_000, "is not TOML")
    found["nested tables"] = ("[" + "a." * 5_000 + "a]\nb = 1", "")
    found["a long number"] = ("a = " + "1" * 10_000, "is not TOML")
    found["too large"] = (text + "#" * (1 << 20), "is larger than 1048576 bytes")
    return found


def test_files_that_are_no_networks(text: str, write: Callable[[str | bytes], Path]) -> None:
    all_cases = cases(text)
    assert len(all_cases) > 200
    for name, (content, message) in all_cases.items():
        path = write(content)
        assert message in refuse(path), name
    assert read_network(write(text))


def test_no_file(tmp_path: Path) -> None:
    presets = "give a file or one of mainnet, testnet, local, minimal"
    assert refuse(tmp_path / "none.toml").endswith(f"(No such file or directory): {presets}")
    assert refuse(tmp_path).endswith(f"(Is a directory): {presets}")
    assert "File name too long" in refuse(tmp_path / ("x" * 300))
    assert "Not a directory" in refuse(Path(__file__) / "x")


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="no /dev/zero here")
def test_an_endless_file() -> None:
    assert "is larger than" in refuse(Path("/dev/zero"))


def test_a_file_that_cannot_be_written(network: Network, tmp_path: Path) -> None:
    with pytest.raises(NodeError, match="cannot be written: Is a directory"):
        write_network(network, tmp_path)
    with pytest.raises(NodeError, match="cannot be written: No such file or directory"):
        write_network(make_unpinned(network), tmp_path / "none" / "net.toml")


# Numbers that break a bound


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"version": 2}, "parameters/version"),
        ({"profile": b"w4a4"}, "parameters/profile"),
        ({"epoch_blocks": 0}, "parameters/period"),
        ({"retarget_blocks": 0}, "parameters/period"),
        ({"spacing": 1}, "parameters/period"),
        ({"max_future": 201}, "parameters/max-future"),
        ({"initial_target": 0}, "parameters/target"),
        ({"max_target": 5}, "parameters/target"),
        ({"quiz_tokens": 2_049}, "parameters/quiz-length"),
        ({"scored_tokens": 0}, "parameters/quiz-length"),
        ({"scored_tokens": 25}, "parameters/quiz-length"),
        ({"salt_tokens": 31}, "parameters/quiz-length"),
        ({"quiz_tokens": 20}, "quiz/question-too-long"),
    ],
)
def test_a_file_whose_numbers_break_a_bound(
    network: Network, tmp_path: Path, changes: dict[str, Any], code: str
) -> None:
    write_network(replace(network, config=replace(network.config, **changes)), tmp_path / "net.toml")
    with pytest.raises(Invalid) as caught:
        get_network(str(tmp_path / "net.toml"))
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"layer_count": 0}, "parameters/layer-count"),
        ({"layer_count": 257}, "parameters/layer-count"),
        ({"salt_ranges": ()}, "parameters/salt-empty"),
        ({"salt_ranges": (TokenRange(5, 4),)}, "parameters/salt-ranges"),
        ({"salt_ranges": (TokenRange(0, 905),)}, "parameters/salt-ranges"),
        ({"bos_id": 905}, "parameters/salt-empty"),
        ({"questions_digest": bytes(32)}, "lexicon/digest"),
    ],
)
def test_a_file_whose_model_breaks_a_bound(
    network: Network, tmp_path: Path, changes: dict[str, Any], code: str
) -> None:
    model = replace(network.config.model, **changes)
    write_network(replace(network, config=replace(network.config, model=model)), tmp_path / "net.toml")
    with pytest.raises(Invalid) as caught:
        get_network(str(tmp_path / "net.toml"))
    assert caught.value.code == code


# Identity


def change_field(value: Any) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value - 1 if value else 1
    if isinstance(value, bytes):
        return bytes([value[0] ^ 1]) + value[1:]
    return (TokenRange(0, 1), *value)


def test_every_parameter_changes_the_network_id(network: Network) -> None:
    config, model = network.config, network.config.model
    others = [replace(config, **{f.name: change_field(getattr(config, f.name))}) for f in fields(Config)
              if f.name != "model"]  # fmt: skip
    others += [replace(config, model=replace(model, **{f.name: change_field(getattr(model, f.name))}))
               for f in fields(ModelManifest)]  # fmt: skip
    ids = {compute_network_id(other) for other in [config, *others]}
    assert len(ids) == 1 + len(fields(Config)) - 1 + len(fields(ModelManifest)) == 26


def test_networks_of_other_models_and_targets_are_other_networks() -> None:
    networks = [get_network("minimal"), get_network("minimal", "smollm2"), get_network("minimal", None, 2**255)]
    networks += [get_network("local"), get_network("testnet"), get_network("local", "mini")]
    assert len({compute_network_id(n.config) for n in networks}) == len(networks)


def test_a_pinned_model_by_path_is_the_same_network(mini_path: Path, tmp_path: Path) -> None:
    copy = tmp_path / "renamed.gguf"
    copy.write_bytes(mini_path.read_bytes())
    assert get_network("minimal", str(copy)) == get_network("minimal", "mini") == get_network("minimal")
    assert resolve_model("mini") == mini_path
    assert read_manifest(MANIFESTS["mini"])["gguf_sha256"] == get_network("minimal").config.model.gguf_sha256.hex()


# --target


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("1", 2**256 // 1000),
        ("500", 2**255),
        ("1000", UINT256_MAX),
        ("0x1", 1),
        ("0x" + "f" * 64, UINT256_MAX),
    ],
)
def test_target_flag(text: str, target: int) -> None:
    assert parse_target(text) == target
    config = get_network("minimal", None, target).config
    assert (config.initial_target, config.max_target) == (target, UINT256_MAX)


@pytest.mark.parametrize(
    "text", ["", "x", "0x", "0xg", "1.5", "-0x1", "0x-1", "1e3", "0x1" + "0" * 64, "1" * 5_000, "\n", "50%"]
)
def test_a_target_that_is_no_number(text: str) -> None:
    with pytest.raises(NodeError, match=r"^--target .*give 1\.\.1000 \(thousandths\) or 0x\.\.\. itself$") as caught:
        parse_target(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["0", "-1", "1001"])
def test_a_target_outside_the_thousandths(text: str) -> None:
    with pytest.raises(UsageError, match="parameters/target-flag"):
        parse_target(text)


def test_a_target_of_zero_makes_no_network() -> None:
    with pytest.raises(Invalid, match="parameters/target"):
        get_network("minimal", None, parse_target("0x0"))


def test_an_easier_target_raises_the_maximum(network: Network, tmp_path: Path) -> None:
    hard = replace(network, config=replace(network.config, max_target=2**250, initial_target=2**249))
    write_network(hard, tmp_path / "hard.toml")
    config = get_network(str(tmp_path / "hard.toml"), None, 2**252).config
    assert (config.initial_target, config.max_target) == (2**252, 2**252)
    config = get_network(str(tmp_path / "hard.toml"), None, 2**240).config
    assert (config.initial_target, config.max_target) == (2**240, 2**250)
