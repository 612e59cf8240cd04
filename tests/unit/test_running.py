"""What `esc.run` takes and refuses where a command only reads, and what of it could show a secret."""

from __future__ import annotations

import pytest

from runbooks import running
from runbooks.lib.errors import Refused


@pytest.mark.parametrize(
    "command",
    [
        "esc open other/prod",
        "esc env open acme/other/prod --format json",
        "pulumi env open other/prod",
        "kubectl get secret x -o yaml",
        "kubectl -n postgresql get secrets -ojson",
        "kubectl get pods,secrets --output=yaml",
        "kubectl get secret/x --output json",
        "kubectl get secrets.v1. -o jsonpath={.data}",
        "kubectl get Secret x --template={{.data}}",
        "kubectl get --raw /api/v1/namespaces/x/secrets",
        "kubectl get --raw=/api/v1/secrets?limit=5",
        "helm get values x",
        "helm -n y get manifest x",
    ],
)
def test_what_prints_secrets_nobody_knows_of_is_refused(command: str) -> None:
    with pytest.raises(Refused, match="prints secrets in clear"):
        running.refuse_changing(command.split())


@pytest.mark.parametrize(
    "command",
    [
        "kubectl get secrets",
        "kubectl get secret x -o name",
        "kubectl get secrets -owide",
        "kubectl describe secret x",
        "kubectl get pods -o yaml",
        "kubectl -n secrets get pods -o yaml",
        "kubectl get externalsecrets.external-secrets.io -o yaml",
        "kubectl get --raw /healthz",
        "esc env get acme/stitch/prod",
        "helm get notes x",
    ],
)
def test_names_and_sizes_are_no_secret(command: str) -> None:
    running.refuse_changing(command.split())


@pytest.mark.parametrize("option", ["-c", "-ca:b=c", "-c=a:b=c", "--config=a:b=c"])
def test_a_setting_on_the_command_line_is_refused_however_it_is_written(option: str) -> None:
    with pytest.raises(Refused, match="written into the stack file"):
        running.refuse_changing(["pulumi", "preview", option])
