"""The files for containers: they are whole, name nothing that is not there, and what they run works outside of one."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from kvasir.config import loading
from kvasir.config.database_url import connection_parameters
from kvasir.config.table import SETTINGS
from tests.support.image import DOCKERFILE, instructions
from tests.support.packages import ROOT, build_wheel
from tests.support.serving import Server, environment, serving

COMPOSE = (ROOT / "compose.yaml").read_text(encoding="utf-8")

#: What the operator of the compose file chooses.
CHOSEN = {"POSTGRES_PASSWORD": "0123456789abcdef", "KVASIR_ADMIN_KEY": "f" * 64}


def filled(text: str) -> str:
    """With the variables put in, as compose does; `${NAME:?why}` must be chosen."""
    return re.sub(r"\$\{(\w+):\?[^}]*\}", lambda found: CHOSEN[found[1]], text)


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    """The file as compose reads it, with what services share merged into them."""
    return dict(msgspec.yaml.decode(filled(COMPOSE)))


@pytest.fixture(scope="module")
def image_environment() -> dict[str, str]:
    return dict(pair.split("=", 1) for line in instructions("ENV") for pair in line.split())


def test_every_variable_is_a_setting(compose: dict[str, Any], image_environment: dict[str, str]) -> None:
    known = {setting.variable for setting in SETTINGS}
    assert known >= image_environment.keys()
    for service in ("kvasir-1", "kvasir-2"):
        assert known >= compose["services"][service]["environment"].keys()


@pytest.mark.parametrize("service", ["kvasir-1", "kvasir-2"])
def test_the_servers_start_with_what_they_are_given(
    compose: dict[str, Any], image_environment: dict[str, str], service: str
) -> None:
    facts = compose["services"][service]
    chosen = loading.load({}, image_environment | facts["environment"])
    assert chosen.engine_name == "postgresql"
    assert chosen.admin_key == CHOSEN["KVASIR_ADMIN_KEY"]
    assert connection_parameters(chosen.engine)["host"]
    assert chosen.http == "0.0.0.0:8901"
    assert facts["ports"][0].endswith(f":{instructions('EXPOSE')[0]}")
    assert instructions("VOLUME") == [str(chosen.data_dir)]
    assert facts["volumes"][0].endswith(f":{chosen.data_dir}")
    assert float(facts["stop_grace_period"].removesuffix("s")) > chosen.drain_seconds
    assert facts["read_only"] is True


def test_the_servers_wait_for_the_database_they_are_meant_for(compose: dict[str, Any]) -> None:
    services = compose["services"]
    postgres = services["postgres"]
    url = services["kvasir-1"]["environment"]["KVASIR_ENGINE"]
    given = postgres["environment"]
    assert url == f"postgresql://{given['POSTGRES_USER']}:{given['POSTGRES_PASSWORD']}@postgres/{given['POSTGRES_DB']}"
    assert services["kvasir-1"]["environment"] == services["kvasir-2"]["environment"]
    assert services["kvasir-1"]["depends_on"] == {"postgres": {"condition": "service_healthy"}}
    assert postgres["healthcheck"]["test"][0] == "CMD"
    named = {volume.split(":")[0] for service in services.values() for volume in service["volumes"]}
    assert named == compose["volumes"].keys()
    # Only this machine reaches them: access keys travel in headers.
    assert all(port.startswith("127.0.0.1:") for service in services.values() for port in service.get("ports", ()))


def test_every_secret_is_chosen_by_the_operator() -> None:
    unfilled = msgspec.yaml.decode(COMPOSE)["services"]
    assert unfilled["postgres"]["environment"]["POSTGRES_PASSWORD"].startswith("${POSTGRES_PASSWORD:?")
    for service in ("kvasir-1", "kvasir-2"):
        given = unfilled[service]["environment"]
        assert given["KVASIR_ADMIN_KEY"].startswith("${KVASIR_ADMIN_KEY:?")
        assert "kvasir:${POSTGRES_PASSWORD:?" in given["KVASIR_ENGINE"]


def test_the_server_is_nobody(compose: dict[str, Any]) -> None:
    (user,) = instructions("USER")
    assert re.search(rf"useradd --system --uid \d+ {user}\b", DOCKERFILE)
    assert "user" not in compose["services"]["kvasir-1"]


def test_what_is_copied_is_enough_to_build_it(wheel: Path, tmp_path: Path) -> None:
    first = DOCKERFILE[: DOCKERFILE.rindex("\nFROM ")]
    copied = [name for line in re.findall(r"^COPY (.*)$", first, re.MULTILINE) for name in line.split()[:-1]]
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    for name in copied:
        assert f"!{name}" in ignored
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / name)
    built = build_wheel(tmp_path, tmp_path)
    with zipfile.ZipFile(built) as one, zipfile.ZipFile(wheel) as other:
        assert sorted(one.namelist()) == sorted(other.namelist())


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("server")) as server:
        yield server


def test_the_health_check_tells_a_ready_server_from_none(running: Server) -> None:
    (check,) = instructions("HEALTHCHECK")
    python, *rest = json.loads(check[check.index("[") :])
    assert python == "python"

    def status(port: int) -> int:
        command = [sys.executable, *(word.replace("8901", str(port)) for word in rest)]
        done = subprocess.run(command, env=environment(no_proxy="*"), capture_output=True, timeout=60, check=False)
        return done.returncode

    assert status(running.port) == 0
    assert status(running.nemesis_port) != 0
