"""A real target whose cluster has already what the stack would create: refused, or taken over by name."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lab.probe import ProbeCheckout

pytestmark = pytest.mark.lab

OBJECT = "configmap/probe-mx"
TAKES_OVER = "kubernetes:upsertExistingObjects"


@pytest.fixture
def home(probe_checkout: ProbeCheckout) -> Iterator[ProbeCheckout]:
    """The probe's stack on the real target, and in the cluster an object of its name that helm made."""
    probe_checkout.forget_probe()
    probe_checkout.write_target(backend=f"file://{probe_checkout.lab_dir}/backend")
    probe_checkout.make_stack_at_home()
    probe_checkout.kubectl("create", "configmap", "probe-mx")
    probe_checkout.kubectl(
        "annotate", OBJECT, "meta.helm.sh/release-name=old", "meta.helm.sh/release-namespace=elsewhere"
    )
    yield probe_checkout
    probe_checkout.forget_probe()


def word(home: ProbeCheckout) -> str:
    return home.kubectl("get", OBJECT, "--output=jsonpath={.data.word}")


def test_it_is_refused_before_anything_is_applied(home: ProbeCheckout) -> None:
    result = home.at_home("deploy.probe", "--yes").ends_with(5, "ConfigMap probe", TAKES_OVER)
    result.shows("ConfigMap probe  (of the helm release old in elsewhere; pulumi would stop at it)")
    assert "> apply" not in result.stdout and word(home) == ""
    home.at_home("preview.probe").ends_with(0).shows("EXISTS ALREADY", "probe: 1 in the way")


def test_it_is_taken_over_only_by_a_person_who_types_the_name(home: ProbeCheckout) -> None:
    settings = home.project / "Pulumi.mx.yaml"
    settings.write_text(settings.read_text().replace("config:\n", f'config:\n  {TAKES_OVER}: "true"\n', 1))
    home.at_home("deploy.probe", "--yes").ends_with(8, "probe")
    assert word(home) == ""
    for answer, code, expected in (("y", 8, ""), ("probe", 0, "first")):
        answers = [("Type probe to go on:", answer)]
        done = home.typed("--target", "home", "deploy.probe", answers=answers, env=home.with_pulumi).ends_with(code)
        assert word(home) == expected
    assert "taken over, and deleted with this stack" in done.all
    home.at_home("preview.probe", "--expect-no-changes").ends_with(0)
