"""The server's wheel, installed with its declared dependencies only into an empty environment, as users install it.

That is also what the Dockerfile does, whose last steps are run here on the same environment.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.cli import run
from tests.support.image import instructions
from tests.support.packages import ROOT, environment_with
from tests.support.serving import Server, environment, serving

#: What the packages of an image may take, and what docs/operate/one-server.md says that they do.
IMAGE_MIB = 110


@pytest.fixture(scope="module")
def programs(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of programs of an environment with the wheel."""
    return environment_with(tmp_path_factory.mktemp("installed") / "env", str(wheel))


def test_the_wheel_and_what_it_declares_are_enough_for_kvasir_kv(
    server: Server, programs: Path, tmp_path: Path
) -> None:
    python = str(programs / "python")
    listing = [sys.executable, "-m", "pip", "--python", python, "list", "--disable-pip-version-check"]
    listed = subprocess.run(listing, capture_output=True, text=True, check=True).stdout
    assert "kvasirdb" in listed
    assert "kvasir-client" not in listed
    assert "pytest" not in listed

    variables = {"KVASIR_URL": server.url, "KVASIR_KEY": server.key, "KVASIR_STORE": "default", "NO_PROXY": "*"}

    def kv(*arguments: str) -> str:
        command = [str(programs / "kvasir"), "kv", *arguments]
        shell = environment(**variables) | {"PATH": os.environ["PATH"]}
        return subprocess.run(command, env=shell, capture_output=True, text=True, check=True, cwd=tmp_path).stdout

    kv("set", "a/b", '{"n": 9.50}')
    assert kv("get", "a/b") == '{"n": 9.50}'
    assert kv("tree") == "/\n└── a/\n    └── b\n"
    where = "import kvasir_client; print(kvasir_client.__file__)"
    loaded = subprocess.run([python, "-c", where], capture_output=True, text=True, check=True, cwd=tmp_path).stdout
    assert Path(loaded.strip()).is_relative_to(programs.parent)


@pytest.mark.only_sqlite
def test_it_serves_with_the_variables_of_the_image_and_is_sound(programs: Path, tmp_path: Path) -> None:
    variables = dict(pair.split("=", 1) for line in instructions("ENV") for pair in line.split())
    # Ports and directories of its own; what comes as an option wins.
    with serving(tmp_path, env=variables, program=(str(programs / "kvasir"),)) as running:
        assert running.store
        assert '"message"' in running.log
        command = [str(programs / "kvasir"), "check", *running.database_options]
        checked = subprocess.run(command, env=environment(), capture_output=True, text=True, check=True)
        assert checked.stdout.startswith("sound")
        assert running.stop() == 0
    assert run("check", "--data-dir", str(running.data_dir)).stdout.startswith("sound")


def test_what_an_image_holds_is_what_the_documents_say(programs: Path) -> None:
    files = [file for file in (programs.parent / "lib").rglob("*") if file.is_file() and not file.is_symlink()]
    mebibytes = sum(file.stat().st_size for file in files) / 2**20
    text = (ROOT / "docs" / "operate" / "one-server.md").read_text(encoding="utf-8")
    (said,) = re.findall(r"its own part of the image has (\d+) MiB", text)
    assert mebibytes <= int(said) <= IMAGE_MIB
    assert mebibytes >= int(said) * 0.8


@pytest.mark.only_sqlite
def test_the_fixtures_for_pytest_work_from_the_wheel(wheel: Path, programs: Path, tmp_path: Path) -> None:
    environment_with(programs.parent, f"{wheel}[pytest]")
    page = (ROOT / "docs" / "testing.md").read_text(encoding="utf-8")
    section = page[: page.index("| Fixture |")]
    conftest, tests = re.findall(r"^```python\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)
    (tmp_path / "conftest.py").write_text(conftest)
    (tmp_path / "test_greeting.py").write_text(tests)
    path = f"{programs}:{os.environ['PATH']}"
    done = subprocess.run(
        [str(programs / "pytest"), "-p", "no:cacheprovider"],
        cwd=tmp_path,
        env=environment(PATH=path, NO_PROXY="*", no_proxy="*"),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert "2 passed" in done.stdout, done.stdout + done.stderr
