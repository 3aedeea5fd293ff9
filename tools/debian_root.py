"""Take the steps of deploy/Dockerfile in clean Debian roots, where there is no Docker, and start a node in the last.

`make container` runs it: as root, on Debian or Ubuntu, with mmdebstrap and the network; some minutes. Each stage begins
with a copy of one minimal root with Debian's own Python. RUN, COPY, ENV, WORKDIR and USER are done as Docker does them;
what only Docker uses (VOLUME, EXPOSE, HEALTHCHECK) is not, but for the health check's command, which asks the node.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = "python3,python3-venv,python-is-python3,ca-certificates"
"""What python:3.11-slim-bookworm has of all this: Python 3.11 with venv and pip, and certificates."""
NO_COMPILER = ("cc", "gcc", "c++", "clang")
PATIENCE_S = 120
STEP = re.compile(r"[A-Z]+")


@dataclass
class Stage:
    """A root, and what the steps so far have set."""

    root: Path
    environment: dict[str, str] = field(default_factory=lambda: {"PATH": os.defpath + ":/usr/sbin:/sbin"})
    folder: str = "/"
    user: str = "root"

    def get_command(self, *words: str) -> list[str]:
        """Return how a command runs in here."""
        name = [f"--userspec={self.user}"] if self.user != "root" else []
        inside = f"cd {shlex.quote(self.folder)} && exec {shlex.join(words)}"
        return ["chroot", *name, str(self.root), "/bin/sh", "-c", inside]

    def run(self, *words: str) -> str:
        """Run a command in here; return what it printed."""
        return subprocess.run(
            self.get_command(*words), env=self.environment, check=True, stdout=subprocess.PIPE, text=True
        ).stdout


def read_steps(dockerfile: Path) -> list[tuple[str, str]]:
    """Return the instructions of a Dockerfile as words and the rest."""
    lines = [line for line in dockerfile.read_text("utf-8").splitlines() if line and not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [(line.partition(" ")[0], line.partition(" ")[2].strip()) for line in joined.splitlines()]


def take_step(word: str, rest: str, stage: Stage, stages: dict[str, Stage]) -> None:
    """Do what an instruction says, as far as it changes a root."""
    if word == "RUN":
        print(f"RUN {rest}", flush=True)
        stage.run("/bin/sh", "-c", rest)
    elif word == "COPY":
        source, target = shlex.split(rest)[-2:]
        found = re.match(r"--from=(\w+)", rest)
        if found:
            shutil.copytree(f"{stages[found[1]].root}{source}", f"{stage.root}{target}", symlinks=True)
        else:
            copy_context(Path(f"{stage.root}{target}"))
    elif word == "ENV":
        for pair in shlex.split(rest):
            name, _, value = pair.partition("=")
            stage.environment[name] = value.replace(f"${name}", stage.environment.get(name, ""))
    elif word == "WORKDIR":
        stage.folder = rest
    elif word == "USER":
        stage.user = rest


def copy_context(target: Path) -> None:
    """Copy what .dockerignore lets through: the names behind its exclamation marks."""
    ignore = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    skip = shutil.ignore_patterns(*(line.removeprefix("**/") for line in ignore if line.startswith("**/")))
    target.mkdir()
    for name in (line[1:] for line in ignore if line.startswith("!")):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, target / name, ignore=skip)
        else:
            shutil.copy(ROOT / name, target / name)


def make_root(folder: Path, base: Path) -> Stage:
    """Return a stage that begins with a copy of the base; pip's own settings and certificates are this machine's."""
    subprocess.run(["cp", "--archive", base, folder], check=True)
    for name in ("/etc/resolv.conf", "/etc/hosts", "/etc/pip.conf", "/etc/ssl/certs/ca-certificates.crt"):
        if Path(name).exists():
            shutil.copy(name, f"{folder}{name}")
    stage = Stage(folder)
    wanted = {name: value for name, value in os.environ.items() if name.startswith("PIP_") or name.endswith("_proxy")}
    stage.environment.update({name: value for name, value in wanted.items() if name != "PIP_FIND_LINKS"})
    return stage


def try_node(stage: Stage, health: list[str]) -> None:
    """Mine, then run a node and ask it as Docker's health check does."""
    compilers = stage.run("/bin/sh", "-c", f"command -v {' '.join(NO_COMPILER)} || true")
    assert not compilers, f"a compiler is in the last stage: {compilers}"
    flags = ("--network", "minimal", "--model", "mini", "--data-dir", "/data/chain")
    print(stage.run("poaid", "mine", "--blocks", "2", *flags), flush=True)
    command = stage.get_command("poaid", "run", *flags, "--http-host", "0.0.0.0")  # noqa: S104 - as in the Dockerfile
    with subprocess.Popen(command, env=stage.environment) as node:
        until = time.monotonic() + PATIENCE_S
        while subprocess.run(stage.get_command(*health), env=stage.environment, check=False, stderr=-3).returncode:
            assert time.monotonic() < until, "the health check does not pass"
            assert node.poll() is None, "the node has ended"
            time.sleep(1)
        node.terminate()
        assert node.wait(PATIENCE_S) == 0, "the node did not end well"
    print("the health check passed, and the node ended at SIGTERM", flush=True)


def main() -> None:
    """Build and try; everything is removed at the end."""
    if os.geteuid() != 0 or shutil.which("mmdebstrap") is None:
        sys.exit("this needs root and mmdebstrap: apt install mmdebstrap; or build the image with Docker itself")
    steps = read_steps(ROOT / "deploy" / "Dockerfile")
    with tempfile.TemporaryDirectory(prefix="poai-root-") as text:
        work, stages = Path(text), dict[str, Stage]()
        work.chmod(0o755)
        subprocess.run(
            ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={PACKAGES}", "bookworm", work / "base"],
            check=True,
        )
        stage, health = Stage(work), list[str]()
        for word, rest in steps:
            assert STEP.fullmatch(word), f"unknown step {word}"
            if word == "FROM":
                name = rest.partition(" AS ")[2] or "last"
                stage = stages[name] = make_root(work / name, work / "base")
            elif word == "HEALTHCHECK":
                health = json.loads(rest[rest.index("[") :])
            else:
                take_step(word, rest, stage, stages)
        try_node(stage, health)


if __name__ == "__main__":
    main()
