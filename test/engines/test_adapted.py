# SPDX-License-Identifier: Apache-2.0
"""Changed models are kept beside their originals: whole, checked and fitting, or made again.

The change is a stand-in that adds a description to the file; test_free_size.py has a real one.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from faulty_processes import LONGEST, kills, open_to_all, outcome_in_child
from onnx_files import write_recognizer

from scrfd_ros.engines import adapted
from scrfd_ros.engines.adapted import (
    Adaptation,
    adapted_model,
    load_adapted,
    metadata_path,
    original_sha256,
)
from scrfd_ros.errors import ModelError, ScrfdError
from scrfd_ros.inference.load import load_network
from scrfd_ros.inference.network import Network
from scrfd_ros.inference.protobuf import field


class Described:
    """A change, with the number of times that it was made."""

    def __init__(self, version: int = 1) -> None:
        self.count = 0
        self.adaptation = Adaptation("described", version, self._change, self._check)
        self.refusal = ""

    def _change(self, content: bytes) -> bytes:
        self.count += 1
        return content + field(6, "described")

    def _check(self, changed: Network, original: Network) -> None:
        assert changed is None or changed.inputs == original.inputs
        if self.refusal:
            raise ModelError(self.refusal)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_recognizer(tmp_path / "any.onnx")


@pytest.fixture
def change() -> Described:
    return Described()


def test_a_model_is_changed_once_and_keeps_its_name(model: Path, change: Described) -> None:
    first = load_adapted(model, change.adaptation)
    second = load_adapted(model, change.adaptation)
    assert change.count == 1
    assert first.path == second.path == model.parent / "adapted" / "described" / "any.onnx"
    assert first.path.read_bytes() == model.read_bytes() + field(6, "described")
    original = load_network(model)
    assert (first.name, first.sha256) == (original.name, original.sha256)
    own = load_network(first.path).sha256
    assert json.loads(metadata_path(first.path).read_text()) == {
        "format": 1,
        "adaptation": "described",
        "version": 1,
        "sha256": own,
        "original_sha256": original.sha256,
    }
    assert original_sha256(first.path, first.path.read_bytes()) == original.sha256
    assert original_sha256(model, model.read_bytes()) == original.sha256
    assert original_sha256(first.path, b"another") != original.sha256


def _cut_off(path: Path, model: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _of_another_model(path: Path, model: Path) -> None:
    shutil.copy(write_recognizer(model.with_name("other.onnx"), "fixed"), path)


def _original_replaced(path: Path, model: Path) -> None:
    write_recognizer(model, normalizes_input=True)


def _no_metadata(path: Path, model: Path) -> None:
    metadata_path(path).unlink()


def _no_model(path: Path, model: Path) -> None:
    path.unlink()


def _metadata_cut_off(path: Path, model: Path) -> None:
    metadata_path(path).write_bytes(metadata_path(path).read_bytes()[:-3])


def _metadata_of_something_else(path: Path, model: Path) -> None:
    metadata_path(path).write_text("[1, 2]")


def _metadata_too_deep(path: Path, model: Path) -> None:
    metadata_path(path).write_text("[" * 100_000)


def _earlier_version(path: Path, model: Path) -> None:
    text = metadata_path(path).read_text()
    metadata_path(path).write_text(text.replace('"version": 1', '"version": 0'))


@pytest.mark.parametrize(
    "damage",
    [
        _cut_off,
        _of_another_model,
        _original_replaced,
        _no_metadata,
        _no_model,
        _metadata_cut_off,
        _metadata_of_something_else,
        _metadata_too_deep,
        _earlier_version,
    ],
)
def test_what_does_not_fit_is_made_again(
    damage: Callable[[Path, Path], None], model: Path, change: Described
) -> None:
    path = adapted_model(model, change.adaptation).path
    damage(path, model)
    assert load_adapted(model, change.adaptation).sha256 == load_network(model).sha256
    assert path.read_bytes() == model.read_bytes() + field(6, "described")
    assert change.count == 2
    load_adapted(model, change.adaptation)
    assert change.count == 2, "and then kept"


def test_a_linked_model_is_changed_beside_the_link(
    model: Path, change: Described, tmp_path: Path
) -> None:
    link = tmp_path / "of somebody" / "mine.onnx"
    link.parent.mkdir()
    link.symlink_to(model)
    assert adapted_model(link, change.adaptation).path == link.parent.joinpath(
        "adapted", "described", "mine.onnx"
    )
    assert not (model.parent / "adapted").exists()


def test_a_changed_model_that_disagrees_is_removed(model: Path, change: Described) -> None:
    change.refusal = "finds other faces"
    for _ in range(2):
        with pytest.raises(ModelError, match="finds other faces"):
            adapted_model(model, change.adaptation)
    assert not list((model.parent / "adapted" / "described").iterdir())


def test_what_is_no_model(tmp_path: Path, change: Described) -> None:
    model = tmp_path / "any.onnx"
    with pytest.raises(ModelError, match=r"any\.onnx: cannot read the model file: No such file"):
        adapted_model(model, change.adaptation)
    model.write_bytes(b"\x3a\x7f")

    def refuse(content: bytes) -> bytes:
        raise ValueError("cut off within field 7")

    with pytest.raises(ModelError, match="not a whole ONNX model: cut off within field 7"):
        adapted_model(model, Adaptation("described", 1, refuse, lambda *networks: None))


def test_a_file_in_the_place_of_the_folder(model: Path, change: Described) -> None:
    (model.parent / "adapted").write_text("")
    with pytest.raises(ScrfdError, match=r"adapted/described/any\.onnx: cannot write: "):
        adapted_model(model, change.adaptation)


def test_a_folder_in_the_place_of_the_file(model: Path, change: Described) -> None:
    (model.parent / "adapted" / "described" / "any.onnx").mkdir(parents=True)
    with pytest.raises(ScrfdError, match=r"any\.onnx: cannot write: Is a directory"):
        adapted_model(model, change.adaptation)


@pytest.fixture
def without_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Children are forks, which ONNX Runtime's threads do not survive."""
    monkeypatch.setattr(adapted, "load_network", lambda path: None)


@pytest.mark.usefixtures("without_networks")
def test_a_read_only_folder(model: Path, change: Described) -> None:
    open_to_all(model.parent)
    model.parent.chmod(0o555)

    def make() -> None:
        adapted_model(model, change.adaptation)

    outcome, _ = outcome_in_child(make, as_other_user=True)
    assert outcome.startswith("ScrfdError: ")
    assert outcome.endswith("adapted/described/any.onnx: cannot write: Permission denied")
    model.parent.chmod(0o755)
    make()
    for path in (model.parent / "adapted").rglob("*"):
        path.chmod(0o555 if path.is_dir() else 0o444)
    for path in (model.parent / "adapted", model.parent):
        path.chmod(0o555)
    assert outcome_in_child(make, as_other_user=True)[0] == "", "it is there"
    for path in (model.parent, model.parent / "adapted", model.parent / "adapted" / "described"):
        path.chmod(0o755)


@pytest.mark.usefixtures("without_networks")
def test_a_full_disk(model: Path, change: Described) -> None:
    outcome, _ = outcome_in_child(
        lambda: adapted_model(model, change.adaptation), largest_file=model.stat().st_size // 2
    )
    assert outcome.endswith("adapted/described/any.onnx: cannot write: File too large")
    assert not list((model.parent / "adapted" / "described").iterdir())


@pytest.mark.usefixtures("without_networks")
def test_whole_or_made_again_whenever_its_writer_is_killed(model: Path, change: Described) -> None:
    folder = model.parent / "adapted"
    states = set()
    for moment in kills(lambda: adapted_model(model, change.adaptation), "/scrfd_ros/", 60):
        found = adapted_model(model, change.adaptation)
        states.add(change.count)
        assert found.path.read_bytes() == model.read_bytes() + field(6, "described"), moment
        names = {path.name for path in found.path.parent.iterdir()}
        assert names == {"any.onnx", "any.onnx.json"}, moment
        shutil.rmtree(folder)
    assert len(states) > 30, "made again by this process after most of them"


TWO = """
import sys, time
from pathlib import Path
from scrfd_ros.engines.adapted import Adaptation, adapted_model
def change(content):
    with open(sys.argv[2], "a") as log:
        log.write("made\\n")
    time.sleep(0.3)
    return content + b"\\x32\\x09described"
adapted_model(Path(sys.argv[1]), Adaptation("described", 1, change, lambda *networks: None))
"""


def test_two_processes_make_one_file(model: Path, tmp_path: Path, change: Described) -> None:
    log = tmp_path / "log"
    command = [sys.executable, "-c", TWO, str(model), str(log)]
    processes = [subprocess.Popen(command, env=os.environ) for _ in range(2)]
    assert [process.wait(LONGEST) for process in processes] == [0, 0]
    assert log.read_text() == "made\n"
    adapted_model(model, change.adaptation)
    assert change.count == 0


def test_a_file_that_is_replaced_while_it_is_loaded(
    model: Path, change: Described, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = adapted_model(model, change.adaptation).path

    def replaced(path: Path, *args: object, **options: object) -> Network:
        path.write_bytes(model.read_bytes())
        return load_network(path)

    monkeypatch.setattr(adapted, "load_network", replaced)
    with pytest.raises(ModelError, match=r"any\.onnx: was replaced while it was being loaded"):
        load_adapted(model, change.adaptation)
    assert path.exists()
