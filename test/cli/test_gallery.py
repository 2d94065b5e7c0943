# SPDX-License-Identifier: Apache-2.0
"""`scrfd gallery` enrolls, identifies, lists, corrects and forgets, and refuses bad input."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bag_files import raw, write_bag
from numpy.typing import NDArray
from portraits import small, write_portraits

from scrfd_ros import pipeline
from scrfd_ros.bags.recordings import read_recordings
from scrfd_ros.cli.main import main
from scrfd_ros.config import PipelineConfig
from scrfd_ros.images.files import read_image

Image = NDArray[np.uint8]

QUICK = ("--backend", "onnxruntime", "--detector", "500m")


@pytest.fixture(scope="module", autouse=True)
def networks_are_loaded_once() -> Iterator[None]:
    """Each command loads its pipeline, in most of its time: all have the same networks."""
    loaded: dict[Any, Any] = {}

    def load_once(load: Callable[..., Any], config: PipelineConfig, *rest: Any) -> Any:
        key = load, config.backend, config.detector, config.recognizer
        if key not in loaded:
            loaded[key] = load(config, *rest)
        return loaded[key]

    with pytest.MonkeyPatch.context() as patch:
        for name in ("_load_detector", "_load_recognizer"):
            patch.setattr(pipeline, name, partial(load_once, getattr(pipeline, name)))
        yield


@pytest.fixture(scope="module")
def portraits(tmp_path_factory: pytest.TempPathFactory, image: Callable[[str], Image]) -> Path:
    """A folder of images, see `write_portraits`."""
    return write_portraits(tmp_path_factory.mktemp("portraits"), image)


@pytest.fixture(scope="module")
def enrolled(portraits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A gallery of Barack, by two images, and Joe, by one."""
    people, store = tmp_path_factory.mktemp("people"), tmp_path_factory.mktemp("gallery") / "p.db"
    for name, *images in (("Barack", "obama1", "obama2"), ("Joe", "biden")):
        (people / name).mkdir()
        for each in images:
            shutil.copy(portraits / f"{each}.png", people / name)
    arguments = ["--people", str(people), "--consent", "on paper", *QUICK]
    assert main(["gallery", "enroll", "--gallery", str(store), *arguments]) == 0
    return store


@pytest.fixture
def gallery(enrolled: Path, tmp_path: Path) -> Path:
    """A copy of that gallery."""
    return Path(shutil.copy(enrolled, tmp_path / "people.db"))


class Run:
    """Runs `scrfd gallery`, and has what it printed."""

    def __init__(self, gallery: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self._gallery, self._capsys = gallery, capsys
        self.out = self.err = ""

    def __call__(self, action: str, *arguments: object, status: int = 0) -> str:
        words = ["gallery", action, "--gallery", str(self._gallery), *map(str, arguments)]
        assert main(words) == status, self._capsys.readouterr()
        self.out, self.err = self._capsys.readouterr()
        lines = [line for line in self.out.splitlines() if "/" not in line]  # paths may be long
        assert all(len(line) <= 80 for line in lines)
        return self.out if status == 0 else self.err


@pytest.fixture
def run(gallery: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    return Run(gallery, capsys)


def read_json(path: Path) -> Any:
    return json.loads(path.read_text("utf-8"))


def test_who_is_in_an_image(run: Run, gallery: Path, portraits: Path, tmp_path: Path) -> None:
    before = gallery.read_bytes()
    files = ["--json", tmp_path / "faces.json", "--output", tmp_path / "drawn.png"]
    text = run("identify", portraits / "obama3.png", *files, *QUICK)
    assert " known " in text and "  Barack\n" in text
    report = read_json(tmp_path / "faces.json")
    (face,) = report["faces"]
    keys = ["score", "box", "landmarks", "embedding"]
    assert list(face) == [*keys, "person", "person_id", "similarity", "margin", "state"]
    assert (face["person"], face["state"]) == ("Barack", "known")
    assert len(face["person_id"]) == 36 and 0.5 < face["similarity"] < 1 and face["margin"] > 0.3
    assert report["recognizer"] == "w600k_mbf"
    assert (read_image(tmp_path / "drawn.png") != read_image(portraits / "obama3.png")).any()

    text = run("identify", portraits / "group.png", "--json", tmp_path / "faces.json", *QUICK)
    assert text.count(" unknown ") == 6 and "Barack" not in text and "Joe" not in text
    assert [face["person"] for face in read_json(tmp_path / "faces.json")["faces"]] == [None] * 6
    assert gallery.read_bytes() == before


def test_the_list_of_people(run: Run, gallery: Path, tmp_path: Path) -> None:
    before = gallery.read_bytes()
    lines = run("list", "--json", tmp_path / "new" / "list.json").splitlines()
    assert lines[0].split() == ["name", "templates", "enrolled", "expires", "consent"]
    assert lines[1].split()[:2] == ["Barack", "2"] and lines[1].endswith("never       on paper")
    assert lines[2].split()[:2] == ["Joe", "1"]
    assert lines[3] == "2 people, 3 templates, for w600k_mbf"
    report = read_json(tmp_path / "new" / "list.json")
    assert [each["name"] for each in report["people"]] == ["Barack", "Joe"]
    assert report["people"][0]["template_count"] == 2 and "templates" not in report

    text = run("list", "Barack", "--json", tmp_path / "list.json")
    report = read_json(tmp_path / "list.json")
    assert [each["source"] for each in report["templates"]] == ["obama1.png", "obama2.png"]
    for each in report["templates"]:
        assert each["template_id"] in text and each["source"] in text
    assert run("list", report["people"][0]["person_id"]) == text.replace(
        f"list in {tmp_path / 'list.json'}\n", ""
    )
    assert gallery.read_bytes() == before


def test_people_are_corrected_and_forgotten(run: Run, portraits: Path, tmp_path: Path) -> None:
    assert run("rename", "Barack", "Barack Obama") == "Barack is called Barack Obama\n"
    assert run("merge", "Joe", "Barack Obama") == "Joe is Barack Obama, who has 3 templates\n"
    text = run("list")
    assert "  also: Joe\n1 person, 3 templates" in text
    assert "merged into Barack Obama\n" in run("list", "Joe")
    assert run("split", "Joe") == (
        "Joe is a person of its own with 1 template; Barack Obama has 2 templates\n"
    )
    run("merge", "Joe", "Barack Obama")
    run("enroll", "Yao", portraits / "yaoming.png", *QUICK)
    run("merge", "Barack Obama", "Yao")
    assert run("split", "Joe").endswith(" with 1 template; Yao has 3 templates\n")
    run("split", "Barack Obama")
    run("forget", "Yao")
    run("list", "Joe", "--json", tmp_path / "joe.json")
    (template,) = read_json(tmp_path / "joe.json")["templates"]
    assert run("move", "Barack Obama", template["template_id"]) == (
        "1 template moved: Barack Obama has 3 templates\n"
    )
    assert "Barack Obama: kept as a negative example" in run(
        "reject", "Barack Obama", portraits / "obama3.png", *QUICK
    )
    assert "not this person " in run("list", "Barack Obama")
    assert "2 people, 3 templates" in run("list")
    assert " unknown " in run("identify", portraits / "obama3.png", *QUICK)
    run("list", "Barack Obama", "--json", tmp_path / "barack.json")
    (negative,) = (
        each for each in read_json(tmp_path / "barack.json")["templates"] if each["is_negative"]
    )
    assert run("remove", negative["template_id"]) == "1 template removed\n"
    assert "  Barack Obama\n" in run("identify", portraits / "obama3.png", *QUICK)
    assert run("forget", "Barack Obama") == "Barack Obama: forgotten, with 3 templates\n"
    assert run("list").endswith("\n1 person, 0 templates, for w600k_mbf\n")


def test_another_name_takes_force(run: Run, portraits: Path) -> None:
    arguments = ["Twin", portraits / "obama3.png", "--expires", "30", *QUICK]
    refusal = run("enroll", *arguments, status=2)
    assert "Twin was not enrolled: this is Barack already: similarity 0." in refusal
    assert run("enroll", *arguments, "--force") == "Twin, a new person: 1 template added\n"
    assert "  never  " not in next(line for line in run("list").splitlines() if "Twin" in line)


def test_consent_that_is_not_taken_is_told(run: Run, portraits: Path) -> None:
    text = run("enroll", "Joe", portraits / "biden.png", "--consent", "by mail", *QUICK)
    assert text.startswith("Joe, there already: 0 templates added\nJoe: left out, there already: ")
    assert "Joe: consent and expiry stay as they are; to change them, forget" in text
    refusal = run("enroll", "Joe", portraits / "biden.png", "--consent", "on paper", *QUICK)
    assert "stay as they are" not in refusal


def test_some_people_are_refused(run: Run, portraits: Path, tmp_path: Path) -> None:
    for name, image in (("Yao Ming", "yaoming"), ("Double", "biden"), ("Group", "group")):
        (tmp_path / "people" / name).mkdir(parents=True)
        shutil.copy(portraits / f"{image}.png", tmp_path / "people" / name)
    run("enroll", "--people", tmp_path / "people", *QUICK, status=1)
    lines = run.out.splitlines()
    assert [line.split()[-1] for line in lines[1:4]] == ["refused", "refused", "new"]
    text = " ".join(run.out.split())
    assert "Double was not enrolled: this is Joe already" in text
    assert ": 6 faces, at (" in text and "Group was not enrolled: no image can be used" in text
    assert lines[-1] == "1 of 3 people enrolled, 1 template added"
    for name in ("Yao Ming", "Double"):
        shutil.rmtree(tmp_path / "people" / name)
    run("enroll", "--people", tmp_path / "people", *QUICK, status=2)


def test_a_person_in_a_bag(run: Run, image: Callable[[str], Image], tmp_path: Path) -> None:
    both = [small(image(name)) for name in ("yaoming.jpg", "biden.jpg")]
    entries = [
        raw("/camera/image", 1_700_000_000_000_000_000 + n * 250_000_000, both[n // 3 % 2])
        for n in range(6)
    ]
    bag = write_bag(tmp_path / "bag", entries)
    refusal = run("enroll", "Yao", bag, *QUICK, status=2)
    assert refusal.endswith("2 faces were followed; choose one by --track N\n")
    assert [line.split()[:4] for line in run.out.splitlines()[1:]] == [
        ["1", "0.0", "0.5", "3"],
        ["2", "0.8", "1.2", "3"],
    ]
    assert run("enroll", "Yao", bag, "--track", 1, *QUICK).startswith("Yao, a new person: ")
    assert "is a bag: enroll from it alone" in run("enroll", "Yao", bag, bag, status=2)

    output = tmp_path / "replayed"
    words = ["replay", bag, "--output", output, "--gallery", tmp_path / "people.db", *QUICK]
    assert main(list(map(str, words))) == 0
    (recording,) = read_recordings(output).values()
    names = [each.name for faces in recording.frames.values() for each in faces.identities or ()]
    assert len(names) == 6 and set(names) == {"", "Joe", "Yao"}  # known from the third look on


def test_people_go_to_other_galleries(
    run: Run, gallery: Path, portraits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "people.jsonl"
    assert run("export", file) == f"2 people written to {file}\n"
    assert file.stat().st_mode & 0o777 == 0o600
    assert "exists already" in run("export", file, status=2)
    other = Run(tmp_path / "other.db", capsys)
    assert other("import", file) == "added: people 2, templates 3\n"
    assert other("import", file) == "added: people 0, templates 0\n"
    assert other("list") == run("list")
    other("rename", "Joe", "Joseph")
    assert "nothing was imported: Joe (line 3) is in" in other("import", file, status=2)

    anew = Run(tmp_path / "anew.db", capsys)
    assert "has no images of anybody" in anew("enroll", "--from", gallery, *QUICK, status=2)
    run("enroll", "Yao Ming", portraits / "yaoming.png", "--keep-images", *QUICK)
    assert anew("enroll", "--from", gallery, *QUICK) == (
        "added: people 1, templates 1\nleft out, as no images of them were kept: Barack, Joe\n"
    )
    assert "  Yao Ming\n" in anew("identify", portraits / "yaoming.png", *QUICK)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["list", "Barak"], "nobody in the gallery is called 'Barak'; did you mean Barack?"),
        (["rename", "Barack", "Joe"], "another person has this name"),
        (["merge", "Barack", "Barack"], "are one person already"),
        (["split", "Joe"], "Joe is not merged into another person"),
        (["move", "Joe", "1234"], "template"),
        (["remove", "1234"], "template"),
        (["forget", "Nobody"], "nobody in the gallery is called 'Nobody'"),
        (["identify", "nothing.jpg"], "nothing.jpg: cannot read the image: No such file"),
        (["enroll", "", "nothing.jpg"], "a name has 1 to 200 characters, and this one 0"),
        (["import", "nothing.jsonl"], "nothing.jsonl: there is no such file"),
        (["enroll"], "give NAME and PATH of images, or --people FOLDER"),
        (["enroll", "x" * 9999, "a.jpg"], "a name has 1 to 200 characters, and this one 9999"),
        (["enroll", "Anna", "x" * 9999], "xxx: cannot read: File name too long"),
        (["enroll", "--people", "x" * 9999], "xxx: cannot read: File name too long"),
        (["enroll", "\u738b" * 200], "scrfd gallery enroll NAME PATH"),
        (["enroll", "Anna"], "give images of Anna: scrfd gallery enroll NAME PATH"),
        (["enroll", "a.jpg", "b.jpg"], "a.jpg is a path, and the name comes first"),
        (["enroll", "Anna", "nothing.jpg"], "nothing.jpg: no such file or folder"),
        (["enroll", "Anna", "--people", "a"], "--people knows the names: leave NAME and PATH out"),
        (["enroll", "--people", "nothing"], "nothing: no such folder"),
        (["enroll", "--people", "a", "--from", "b"], "--people and --from: choose one"),
        (
            ["enroll", "--from", "b", "--consent", "c"],
            "--from takes people over as they are: leave",
        ),
        (["enroll", "Anna", ".", "--track", "1"], "--topic, --track and --rotation are for a bag"),
    ],
)
def test_what_cannot_be_done(run: Run, arguments: list[str], reason: str) -> None:
    assert reason in run(*arguments, status=2)


@pytest.mark.parametrize(
    "arguments", [["list"], ["forget", "Anna"], ["identify", "{portraits}/biden.png"]]
)
def test_only_enrolling_makes_a_gallery(
    arguments: list[str], portraits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [each.format(portraits=portraits) for each in arguments]
    assert main(["gallery", *words, "--gallery", str(tmp_path / "new.db")]) == 2
    assert "new.db: there is no gallery" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["list"], "arguments are required: --gallery"),
        (["list", "--gallery", " "], "argument --gallery: is empty; expected a file, or a URL"),
        (["enroll", "Anna", "a.jpg", "--expires", "soon"], "expected a number of days, or a date"),
        (["enroll", "Anna", "a.jpg", "--expires", "-1"], "expected a time to come, found '-1'"),
    ],
)
def test_arguments_that_are_not_understood(
    arguments: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["gallery", *arguments])
    assert stopped.value.code == 2
    assert reason in capsys.readouterr().err
