"""The checks of a stack as stack.yaml shapes them, and what is said when it names one that is not there."""

from __future__ import annotations

import pytest

from stackctl.errors import UsageError
from stackctl.health import explain, registry
from stackctl.health.look.scene import Scene
from stackctl.health.plan import Plan
from tests.stackctl.health.support.plans import plan
from tests.stackctl.health.support.scenes import HostView, find


def scene(found: Plan) -> Scene:
    return Scene(found, HostView())


def test_overrides_reach_the_check_and_its_policy() -> None:
    override = {"timeout": "3s", "interval": "1h", "fail_after": 7, "remedy": "restart engine"}
    found = plan(health={"checks": {"generation": override, "clock": {"enabled": False}}, "timeout": "4s"})
    checks = {check.id: check for check in registry.build(scene(found))}
    changed = checks["generation"]
    assert (changed.timeout, changed.interval, changed.remedy) == (3, 3600, "restart engine")
    policy = registry.policy(changed, found)
    assert (policy.fail_after, policy.ok_after, policy.stale_after) == (7, 2, 3 * 3600)
    assert checks["engine"].timeout == 4
    kept = plan(health={"checks": {"engine": {"fail_after": 1}}, "timeout": "20s"})
    assert find(scene(kept), "engine").timeout == 20, "an override of something else keeps health.timeout"
    assert "clock" not in checks


@pytest.mark.parametrize(
    ("health", "words"),
    [
        ({"checks": {"gpuu": {}}}, "health.checks.gpuu: there is no such check; did you mean 'gpu'"),
        ({"commands": [{"id": "x", "argv": ["true"], "needs": ["engin"]}]}, "no check 'engin'; did you mean"),
    ],
)
def test_what_is_not_there_is_said_with_a_suggestion(health: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        registry.build(scene(plan(health=health)))


def test_patterns_choose_and_a_wrong_one_is_an_error() -> None:
    checks = registry.build(scene(plan(services={"webui": {"enabled": True}})))
    assert [c.id for c in registry.choose(checks, ("container",))] == ["container.engine", "container.webui"]
    assert registry.choose(checks, ()) == checks
    with pytest.raises(UsageError, match="did you mean 'disk'"):
        registry.choose(checks, ("dsik",))


def test_every_check_explains_itself() -> None:
    found = plan(
        services={"webui": {"enabled": True}, "prometheus": {"enabled": True}},
        health={
            "certificates": [{"name": "c", "file": "/x"}],
            "commands": [{"id": "mine", "argv": ["true"]}],
            "tunnels": ["t"],
            "checks": {"images": {}},
        },
        notify={"channels": [{"type": "ntfy", "topic": "x"}]},
    )
    checks = registry.build(scene(found))
    assert len({check.id for check in checks}) == len(checks)
    for check in checks:
        text = explain.explanation(check, registry.policy(check, found))
        assert check.looks_at and check.why and check.do, check.id
        assert "what to do" in text
        assert set(check.needs) <= {other.id for other in checks}
        assert check.timeout <= 60


def test_thresholds_are_shares_durations_and_numbers() -> None:
    health = {"checks": {"disk": {"warn": "20%"}, "latency": {"crit": "90s"}, "queue": {"warn": 3}}}
    found = plan(health=health)
    assert found.health.checks["disk"].warn == 0.2
    assert found.health.checks["latency"].crit == 90
    assert found.health.checks["queue"].warn == 3
    assert find(scene(found), "disk").thresholds
