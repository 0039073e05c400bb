"""The server's wheel, installed with its declared dependencies only into an empty environment, as users install it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.support.serving import Server, environment

ROOT = Path(__file__).parent.parent


def test_the_wheel_and_what_it_declares_are_enough_for_kvasir_kv(server: Server, tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True, timeout=100)
    (wheel,) = tmp_path.glob("kvasirdb-*.whl")
    # Without pip of its own: that of this environment installs into it, in the versions that are tested.
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "env")], check=True, timeout=100)
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    pins = [line.rstrip(" \\") for line in lock if line and not line.startswith((" ", "#"))]
    (tmp_path / "pins").write_text("\n".join(pins) + "\n")
    python = str(tmp_path / "env" / "bin" / "python")
    install = [*pip, "--python", python, "install", "--constraint", str(tmp_path / "pins"), str(wheel)]
    subprocess.run(install, check=True, timeout=280)
    listing = [sys.executable, "-m", "pip", "--python", python, "list", "--disable-pip-version-check"]
    listed = subprocess.run(listing, capture_output=True, text=True, check=True).stdout
    assert "kvasirdb" in listed
    assert "kvasir-client" not in listed
    assert "pytest" not in listed

    variables = {"KVASIR_URL": server.url, "KVASIR_KEY": server.key, "KVASIR_STORE": "default", "NO_PROXY": "*"}

    def kv(*arguments: str) -> str:
        command = [str(tmp_path / "env" / "bin" / "kvasir"), "kv", *arguments]
        shell = environment(**variables) | {"PATH": os.environ["PATH"]}
        return subprocess.run(command, env=shell, capture_output=True, text=True, check=True, cwd=tmp_path).stdout

    kv("set", "a/b", '{"n": 9.50}')
    assert kv("get", "a/b") == '{"n": 9.50}'
    assert kv("tree") == "/\n└── a/\n    └── b\n"
    where = "import kvasir_client; print(kvasir_client.__file__)"
    loaded = subprocess.run([python, "-c", where], capture_output=True, text=True, check=True, cwd=tmp_path).stdout
    assert Path(loaded.strip()).is_relative_to(tmp_path / "env")
