"""Commands, options and messages that the documents name are those there are."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from scrfd_ros.cli.main import _COMMANDS, _parser

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "models" / "README.md", *sorted(ROOT.glob("docs/*.md"))]
CALL = re.compile(r"(?:\./run\.sh|ros2 run scrfd_ros scrfd|scrfd) (?P<words>.+)")


def commands() -> Iterator[tuple[Path, list[str]]]:
    """Command lines of scrfd in the code blocks of the documents, as words."""
    for document in DOCUMENTS:
        for block in document.read_text("utf-8").split("```")[1::2]:
            for line in block.splitlines()[1:]:
                if call := CALL.fullmatch(line):
                    yield document, shlex.split(call["words"], comments=True)


def help_of(command: str) -> str:
    """What `scrfd COMMAND --help` prints."""
    output = io.StringIO()
    with contextlib.redirect_stdout(output), pytest.raises(SystemExit):
        _parser().parse_args([command, "--help"])
    return output.getvalue()


def help_of_run_sh() -> str:
    """What run.sh says without a command."""
    command = [ROOT / "run.sh"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def run_sh_commands() -> set[str]:
    """The commands that run.sh lists."""
    return set(re.findall(r"^  ([a-z-]+) ", help_of_run_sh(), re.MULTILINE))


def test_commands_are_found() -> None:
    found = {words[0] for _, words in commands()}
    assert {"models", "convert", "verify", "bench", "detect", "demo", "test"} <= found


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(words, id=f"{document.stem}: {shlex.join(words)}")
        for document, words in commands()
    ],
)
def test_command_exists(words: list[str]) -> None:
    assert words[0] in run_sh_commands()
    if words[0] in _COMMANDS:
        _parser().parse_args(words)  # exits if it does not know them


def test_help_of_run_sh_fits_a_terminal() -> None:
    assert max(map(len, help_of_run_sh().splitlines())) <= 80


def test_run_sh_does_what_it_lists() -> None:
    script = (ROOT / "run.sh").read_text("utf-8").split("case $command in")[1]
    cases = re.findall(r"^  ([^ ].*)\)$", script, re.MULTILINE)
    names = {name for case in cases for name in case.split(" | ")}
    assert set(_COMMANDS) <= run_sh_commands() <= names


def test_options_of_convert_are_documented() -> None:
    text = (ROOT / "docs" / "tensorrt.md").read_text("utf-8")
    listed = set(re.findall(r"^\| `(--[a-z-]+)", text, re.MULTILINE))
    assert listed == set(re.findall(r"^  (--[a-z-]+)", help_of("convert"), re.MULTILINE))


def test_messages_are_those_of_the_code() -> None:
    source = "".join(path.read_text("utf-8") for path in (ROOT / "scrfd_ros").rglob("*.py"))
    source = re.sub(r'"\s*\n\s*f?"', "", source)  # long messages go over several lines
    text = (ROOT / "docs" / "tensorrt.md").read_text("utf-8")
    table = text.split("## When something does not work\n")[1].split("\n## ")[0]
    cells = re.findall(r"^\| (`.+?) \|", table, re.MULTILINE)
    messages = [message for cell in cells for message in re.findall(r"`(.+?)`", cell)]
    assert len(messages) > 5
    for message in messages:
        if not message.startswith("Error Code"):  # which is TensorRT's own
            for part in re.split(r"\.\.\.|640x640|cuInit|: ", message):
                assert part.strip() in source, message
