"""The NetworkPolicy of `export kubernetes`: only where it is asked for, for our pods, and valid."""

from __future__ import annotations

from dataclasses import replace

import kubernetes_validate
import yaml

from nemotron_ops.deploy.kubernetes import Workload, manifests, to_yaml

WORKLOAD = Workload(recipes=("30b",), image="registry.example/nemotron-ops:1", name="nemo", port=9000)


def test_a_policy_is_written_only_where_it_is_asked_for() -> None:
    assert "NetworkPolicy" not in [m["kind"] for m in manifests(WORKLOAD)]


def test_the_policy_is_valid_and_opens_the_port_to_the_namespace_alone() -> None:
    documents = manifests(replace(WORKLOAD, network_policy=True))
    policy, pods = documents[-1], documents[2]["spec"]["template"]
    assert yaml.safe_load(to_yaml(policy)) == policy
    kubernetes_validate.validate(policy, "1.30", strict=True)
    spec = policy["spec"]
    assert spec["podSelector"]["matchLabels"] == pods["metadata"]["labels"]
    assert spec["ingress"] == [{"from": [{"podSelector": {}}], "ports": [{"protocol": "TCP", "port": 9000}]}]
    assert {(p["protocol"], p["port"]) for p in spec["egress"][0]["ports"]} == {("UDP", 53), ("TCP", 53), ("TCP", 443)}
