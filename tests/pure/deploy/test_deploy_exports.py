"""Files for other programs: HAProxy's configuration and Kubernetes manifests.

The golden configuration in tests/golden/balancer is rewritten by `python tests/pure/deploy/test_deploy_exports.py`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from nemotron_ops.deploy.balancer.config import Balancer, Server, parse_stat, render, server_name, set_state
from nemotron_ops.deploy.kubernetes import Workload, manifests, to_yaml
from nemotron_ops.errors import UsageError
from nemotron_ops.operations.targets import named_addresses

GOLDEN = Path(__file__).parents[2] / "golden/balancer"
SERVERS = (Server(name="gpu1", address="10.0.0.1:8001"), Server(name="gpu2", address="10.0.0.2:8001"))
CASES = {
    "plain.cfg": Balancer(servers=SERVERS),
    "tls.cfg": Balancer(servers=SERVERS, bind=":443", certificate="/etc/ssl/private/door.pem", slots=8, stats=""),
    "service.cfg": Balancer(
        servers=(Server(name="gpu1", address="gpu1.example.org:8001"), Server(name="gpu2", address="[fd00::2]:8001")),
        user="haproxy", chroot="/var/lib/haproxy",
    ),
}  # fmt: skip
WORKLOAD = Workload(
    recipes=("30b", "4b"), image="registry.example/nemotron-ops:1", profile="tools", storage_class="fast"
)


@pytest.mark.parametrize("case", CASES)
def test_the_balancers_configuration_is_this_to_the_letter(case: str) -> None:
    assert render(CASES[case]) == (GOLDEN / case).read_text()


def test_haproxys_statistics_are_understood() -> None:
    header = "# pxname,svname,qcur,scur,stot,econ,eresp,wretr,wredis,status,"
    rows = ["models,gpu1,2,4,100,1,2,3,1,UP,", "models,BACKEND,2,4,100,0,0,0,0,UP,", "light,gpu1,0,0,9,0,0,0,0,UP,"]
    (gpu1,) = parse_stat("\n".join([header, *rows]))
    assert (gpu1.name, gpu1.status, gpu1.running, gpu1.queued) == ("gpu1", "UP", 4, 2)
    assert (gpu1.served, gpu1.failed, gpu1.retried) == (100, 3, 4)
    assert parse_stat("") == ()


def test_a_target_becomes_a_name_that_haproxy_takes() -> None:
    assert server_name("ann@gpu1.example.org") == "gpu1.example.org"
    assert server_name("gpu 1;x") == "gpu-1-x"
    assert set_state("gpu1", "drain") == "set server models/gpu1 state drain"


@pytest.mark.parametrize(
    ("word", "why"),
    [
        ("gpu1:10.0.0.1:8001", "expected TARGET=HOST:PORT"),
        ("gpu1=10.0.0.1", "expected TARGET=HOST:PORT"),
        ("gpu1=10.0.0.1:", "expected TARGET=HOST:PORT"),
        ("gpu9=10.0.0.1:8001", "the group has no gpu9"),
    ],
)
def test_an_address_that_would_be_for_nobody_is_refused(word: str, why: str) -> None:
    assert named_addresses(("gpu1=10.0.0.1:8001",), ("gpu1", "gpu2")) == {"gpu1": "10.0.0.1:8001"}
    with pytest.raises(UsageError, match=why):
        named_addresses((word,), ("gpu1", "gpu2"))


def kinds() -> dict[str, dict[str, Any]]:
    return {f"{d['kind']} {d['metadata']['name']}": d for d in manifests(WORKLOAD)}


@pytest.mark.parametrize("version", ["1.28", "1.31"])
def test_kubernetes_own_schema_accepts_every_manifest(version: str) -> None:
    for document in manifests(WORKLOAD):
        kubernetes_validate.validate(document, version, strict=True)


def test_the_schema_check_can_fail() -> None:
    (document, *_) = manifests(WORKLOAD)
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate({**document, "spec": {"ports": "none"}}, "1.31", strict=True)


def test_yaml_says_what_was_meant() -> None:
    for document in manifests(WORKLOAD):
        assert yaml.safe_load(to_yaml(document)) == document
    for value in ("yes", "1e3", "a: b", '"', "null", "", "8", "-x", "a\\b"):
        assert yaml.safe_load(to_yaml({"k": value})) == {"k": value}


def test_probes_are_those_of_the_gateway_and_the_pod_may_take_its_time() -> None:
    pod = kinds()["StatefulSet nemotron-ops"]["spec"]["template"]["spec"]
    (server,) = pod["containers"]
    assert server["readinessProbe"]["httpGet"]["path"] == "/health"
    startup = server["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] >= WORKLOAD.load_s
    assert "tcpSocket" in server["livenessProbe"]
    assert server["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert [c["args"] for c in pod["initContainers"]] == [["build", "--cuda"], ["fetch", "30b"], ["fetch", "4b"]]
    assert pod["initContainers"][0]["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert "HF_TOKEN" not in str(server)


if __name__ == "__main__":
    GOLDEN.mkdir(parents=True, exist_ok=True)
    for case, balancer in CASES.items():
        (GOLDEN / case).write_text(render(balancer))
