"""The languages that there is an example client in. Imports nothing that takes time, since `--help` names them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Language:
    """An example client.

    Attributes:
        files: of the skeleton, the main one first -> template.
        run: the command that runs it, `{folder}` standing for the skeleton's folder, quoted.
        build: the command that builds it first; None where nothing is built.
    """

    files: dict[str, str]
    run: str
    build: str | None = None


LANGUAGES = {
    "python": Language({"client.py": "client.py"}, "python3 {folder}/client.py"),
    "javascript": Language({"client.js": "client.js"}, "node {folder}/client.js"),
    "go": Language(
        {"main.go": "main.go", "go.mod": "go.mod"},
        "{folder}/client",
        "(cd {folder} && go build -o client .)",
    ),
    "rust": Language(
        {"src/main.rs": "main.rs", "src/json.rs": "json.rs", "Cargo.toml": "Cargo.toml"},
        "{folder}/target/release/client",
        "cargo build --release --manifest-path {folder}/Cargo.toml",
    ),
}
"""None of them needs more than its language's standard library."""
