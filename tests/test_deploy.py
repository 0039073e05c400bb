"""The files in deploy/: systemd and Kubernetes take them, and their times add up with those of the server."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

import kvasir
from kvasir.config import loading
from kvasir.config.table import SETTINGS
from tests.support.image import DOCKERFILE, instructions
from tests.support.serving import KVASIR

DEPLOY = Path(__file__).parent.parent / "deploy"
UNITS = sorted((DEPLOY / "systemd").iterdir())
MANIFESTS = sorted((DEPLOY / "kubernetes").iterdir())

#: The oldest and the newest Kubernetes that the files are held against.
VERSIONS = ("1.28", "1.37")

#: What a server needs after the requests in progress: the last commit, and its end.
COMMIT_SECONDS = 5
#: Until every node has heard that a pod ends and sends it no new connections.
PROPAGATION_SECONDS = 5
#: An exposure that systemd calls "OK", in tenths: 0 is nothing, 100 everything.
EXPOSURE = 20


def objects(manifest: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(manifest.read_text(encoding="utf-8")))


def workloads() -> Iterator[dict[str, Any]]:
    yield from (one for file in MANIFESTS for one in objects(file) if one["kind"] in ("StatefulSet", "Deployment"))


def pods() -> list[dict[str, Any]]:
    return [workload["spec"]["template"]["spec"] for workload in workloads()]


def only_container(pod: dict[str, Any]) -> dict[str, Any]:
    (container,) = pod["containers"]
    return dict(container)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda file: file.stem)
def test_kubernetes_knows_every_field(manifest: Path, version: str) -> None:
    for one in objects(manifest):
        kubernetes_validate.validate(one, version, strict=True)


def test_a_misspelt_field_would_be_found() -> None:
    (deployment,) = [one for file in MANIFESTS for one in objects(file) if one["kind"] == "Deployment"]
    deployment["spec"]["template"]["spec"]["terminationGracePeriod"] = 40
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(deployment, VERSIONS[-1], strict=True)


def test_one_server_has_the_file_and_several_the_database() -> None:
    kinds = {workload["kind"]: workload for workload in workloads()}
    assert kinds["StatefulSet"]["spec"]["replicas"] == 1
    assert kinds["Deployment"]["spec"]["replicas"] >= 2
    (claim,) = kinds["StatefulSet"]["spec"]["volumeClaimTemplates"]
    (mount,) = only_container(kinds["StatefulSet"]["spec"]["template"]["spec"])["volumeMounts"]
    assert mount["name"] == claim["metadata"]["name"]
    assert mount["mountPath"] == instructions("VOLUME")[0]
    (budget,) = [one for file in MANIFESTS for one in objects(file) if one["kind"] == "PodDisruptionBudget"]
    assert budget["spec"]["maxUnavailable"] < kinds["Deployment"]["spec"]["replicas"]
    assert kinds["Deployment"]["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda file: file.stem)
def test_names_and_ports_lead_somewhere(manifest: Path) -> None:
    service, *others = objects(manifest)
    labels = service["spec"]["selector"]
    for one in others:
        assert one["spec"]["selector"]["matchLabels"] == labels
    template = others[-1]["spec"]["template"]
    assert template["metadata"]["labels"] == labels
    container = only_container(template["spec"])
    (port,) = container["ports"]
    assert service["spec"]["ports"][0]["targetPort"] == port["name"]
    assert str(port["containerPort"]) == instructions("EXPOSE")[0]
    assert container["image"] == f"kvasir:{kvasir.__version__}"
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert container[probe]["httpGet"]["port"] == port["name"]
    known = {setting.variable for setting in SETTINGS}
    assert known >= {variable["name"] for variable in container["env"]}
    # A value in the file would be no secret.
    assert all(
        "valueFrom" in each for each in container["env"] if each["name"] in ("KVASIR_ADMIN_KEY", "KVASIR_ENGINE")
    )


@pytest.mark.parametrize("pod", pods(), ids=["postgresql", "sqlite"])
def test_the_times_of_probes_and_of_the_end_add_up(pod: dict[str, Any]) -> None:
    container = only_container(pod)
    (slept,) = [float(word) for word in container["lifecycle"]["preStop"]["exec"]["command"][1:]]
    arguments = container["args"]
    assert arguments[0] == "serve"
    options = dict(zip(arguments[1::2], arguments[2::2], strict=True))
    drain = loading.load({"drain_seconds": options.get("--drain-seconds")}, {}).drain_seconds
    # Before SIGTERM every node must know; after it there is time to answer what was begun and to commit it.
    assert slept >= PROPAGATION_SECONDS
    assert pod["terminationGracePeriodSeconds"] >= slept + drain + COMMIT_SECONDS

    def noticed(probe: str) -> float:
        """Seconds until so many probes in a row have failed, each of them by its timeout."""
        timing = container[probe]
        assert timing["timeoutSeconds"] <= timing["periodSeconds"]
        return float(timing["periodSeconds"] * timing["failureThreshold"])

    # A server that is not ready gets no requests long before it is taken for dead.
    assert noticed("readinessProbe") * 3 <= noticed("livenessProbe")
    # One that drains is not taken for dead, and no stall of a disk is: five seconds are SQLite's own patience.
    assert noticed("livenessProbe") >= drain + 5
    # A start may upgrade a large database.
    assert noticed("startupProbe") >= 300
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert container["livenessProbe"]["httpGet"]["path"] == "/healthz"


@pytest.mark.parametrize("pod", pods(), ids=["postgresql", "sqlite"])
def test_a_pod_may_do_nothing_that_it_does_not_need(pod: dict[str, Any]) -> None:
    (user,) = re.findall(r"useradd --system --uid (\d+)", DOCKERFILE)
    assert pod["securityContext"]["runAsUser"] == int(user)
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    allowed = only_container(pod)["securityContext"]
    assert allowed == {
        "readOnlyRootFilesystem": True,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod["automountServiceAccountToken"] is False


# -- systemd ----------------------------------------------------------------------------------------------------


def unit(name: str) -> str:
    return (DEPLOY / "systemd" / name).read_text(encoding="utf-8")


def setting(name: str, text: str) -> str:
    (value,) = re.findall(rf"^{name}=(.*)$", text, re.MULTILINE)
    return str(value)


@pytest.fixture
def installed_units(tmp_path: Path) -> list[Path]:
    """The units as on a machine where the program is installed where this test has it."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is missing: apt-get install systemd")
    for file in UNITS:
        (tmp_path / file.name).write_text(unit(file.name).replace("/opt/kvasir/bin/kvasir", str(KVASIR)))
    return [tmp_path / file.name for file in UNITS]


def test_systemd_takes_the_units(installed_units: list[Path]) -> None:
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *installed_units], capture_output=True, text=True, check=False
    )
    complaints = [line for line in done.stderr.splitlines() if str(installed_units[0].parent) in line]
    assert (done.returncode, complaints) == (0, [])


@pytest.mark.parametrize("name", ["kvasir.service", "kvasir-backup.service"])
def test_systemd_finds_little_that_a_unit_may_do(installed_units: list[Path], name: str) -> None:
    (file,) = [file for file in installed_units if file.name == name]
    command = ["systemd-analyze", "security", "--offline=true", f"--threshold={EXPOSURE}", "--no-pager", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "unrecognized option" in done.stderr:
        pytest.skip("this systemd-analyze cannot judge a file: it takes version 250 or newer")
    assert done.returncode == 0, done.stdout[-200:]


def test_the_units_go_together() -> None:
    server, backup = unit("kvasir.service"), unit("kvasir-backup.service")
    assert float(setting("TimeoutStopSec", server)) >= loading.load({}, {}).drain_seconds + COMMIT_SECONDS
    assert setting("User", server) == setting("User", backup)
    assert setting("UMask", server) == setting("UMask", backup) == "0077"
    directory = f"/var/lib/{setting('StateDirectory', server)}"
    for text in (server, backup):
        assert f"--data-dir {directory}" in setting("ExecStart", text)
    assert f"/var/lib/{setting('StateDirectory', backup)}/" in setting("ExecStart", backup)
    assert setting("FileDescriptorName", unit("kvasir.socket")) == "http"
