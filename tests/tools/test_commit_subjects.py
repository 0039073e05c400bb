"""Which commit subjects `make check` refuses, and since when."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tools.commit_subjects import FIRST, fault, subjects

#: As long as a subject may be
LONG = "docs: name " + "x" * 61


@pytest.mark.parametrize("subject", [FIRST, "ci: take it", "a.b/c-d_1: b c", "docs: name v1.0", "x: say `a b`", LONG])
def test_a_subject_names_an_area_a_verb_and_an_object(subject: str) -> None:
    assert fault(subject) is None


@pytest.mark.parametrize(
    "subject",
    ["Fix it", "docs: Split it", "docs:split it", "docs: split", "Docs: split it", "docs: split it.", LONG + "x"],
)
def test_other_subjects_are_refused(subject: str) -> None:
    assert fault(subject)


class Repository:
    """A repository with one commit, from before the rule."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self.git("init", "--quiet")
        self.commit("Whatever it was.")

    def git(self, *arguments: str) -> None:
        who = ("-c", "user.name=test", "-c", "user.email=test@example.org")
        subprocess.run(["git", "-C", self.folder, *who, *arguments], check=True, capture_output=True)

    def commit(self, subject: str) -> None:
        self.git("commit", "--quiet", "--allow-empty", "--message", subject)


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    try:
        return Repository((tmp_path / "repository").resolve())
    except FileNotFoundError:
        pytest.skip("git is not installed")


def test_subjects_count_from_the_first_that_followed_the_rule(repository: Repository) -> None:
    repository.commit(FIRST)
    repository.commit("Wrong")
    assert subjects(repository.folder) == ["Wrong", FIRST]


def test_subjects_count_from_the_last_tag(repository: Repository) -> None:
    repository.commit(FIRST)
    repository.commit("Wrong")
    repository.git("tag", "v1")
    assert subjects(repository.folder) == []
    repository.commit("docs: split it")
    assert subjects(repository.folder) == ["docs: split it"]


def test_without_the_history_nothing_is_checked(repository: Repository, tmp_path: Path) -> None:
    assert subjects(repository.folder) is None, "the rule never began here"
    repository.commit(FIRST)
    repository.git("clone", "--quiet", "--depth=1", f"file://{repository.folder}", str(tmp_path / "shallow"))
    assert subjects((tmp_path / "shallow").resolve()) is None
    (repository.folder / "unpacked").mkdir()
    assert subjects(repository.folder / "unpacked") is None
    assert subjects(tmp_path) is None, "no repository"


def test_without_git_nothing_is_checked(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    repository.commit(FIRST)
    monkeypatch.setenv("PATH", "/nonexistent")
    assert subjects(repository.folder) is None
