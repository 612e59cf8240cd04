"""What `esc.run` takes and refuses where a command only reads, and what of it could show a secret."""

from __future__ import annotations

import pytest

from runbooks.core.errors import Refused
from runbooks.stacks import environment_commands
from runbooks.tasks import esc
from tests.fixtures import Repo

CHANGE = [
    "pulumi up --yes", "pulumi destroy", "pulumi -C pulumi/apps/stitch up", "pulumi --stack preview up",
    "pulumi stack rm", "pulumi config get x", "pulumi config set a b", "pulumi preview -c a=b",
    "pulumi stack output --show-secrets", "pulumi", "kubectl delete ns x", "kubectl -n get delete ns x",
    "kubectl config use-context x", "helm uninstall x", "esc env set a b c", "/usr/bin/kubectl apply -f x",
    "sh -c true", "xargs rm", "sudo ls", "env A=b pulumi up",
    # Each writes into the stack config.
    "pulumi preview -c", "pulumi preview -ca:b=c", "pulumi preview -c=a:b=c", "pulumi preview --config=a:b=c",
]  # fmt: skip
PRINT_SECRETS = [
    "esc open other/prod", "esc env open acme/other/prod --format json", "pulumi env open other/prod",
    "kubectl get secret x -o yaml", "kubectl -n postgresql get secrets -ojson",
    "kubectl get pods,secrets --output=yaml", "kubectl get secret/x --output json",
    "kubectl get secrets.v1. -o jsonpath={.data}", "kubectl get Secret x --template={{.data}}",
    "kubectl get --raw /api/v1/namespaces/x/secrets", "kubectl get --raw=/api/v1/secrets?limit=5", "helm get values x",
    "helm -n y get manifest x",
]  # fmt: skip
READ = [
    "pulumi preview --diff", "pulumi -C pulumi/apps/stitch stack output", "pulumi config --json",
    "kubectl -n tailscale get pods", "kubectl auth can-i get pods", "kubectl rollout status deploy/x",
    "helm template x", "esc env ls", "psql -c select", "env", "env A=b",
    # Names and sizes of Secrets are none themselves.
    "kubectl get secrets", "kubectl get secret x -o name", "kubectl get secrets -owide", "kubectl describe secret x",
    "kubectl get pods -o yaml", "kubectl -n secrets get pods -o yaml",
    "kubectl get externalsecrets.external-secrets.io -o yaml", "kubectl get --raw /healthz",
    "esc env get acme/stitch/prod", "helm get notes x",
]  # fmt: skip


@pytest.mark.parametrize("command", [*CHANGE, *PRINT_SECRETS])
def test_what_changes_something_or_prints_unknown_secrets_is_refused(command: str) -> None:
    with pytest.raises(Refused) as refused:
        environment_commands.refuse_changing(command.split())
    assert command not in PRINT_SECRETS or "secrets" in refused.value.summary


@pytest.mark.parametrize("command", READ)
def test_what_reads_is_taken(command: str) -> None:
    environment_commands.refuse_changing(command.split())


def test_an_environment_that_leads_to_another_cluster_runs_nothing(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = {"value": "clusters: [{cluster: {server: 'https://elsewhere.example'}}]", "secret": True}
    repo.on_cloud()
    repo.install("esc")
    repo.answer("esc", ["--format"], {"value": {"files": {"value": {"KUBECONFIG": elsewhere}}}})
    monkeypatch.setattr("sys.argv", ["inv", "esc.run", "stitch/prod", "--", "kubectl", "get", "pods"])
    repo.c.remainder = "kubectl get pods"
    with pytest.raises(Refused, match="KUBECONFIG in files of stitch/prod") as refused:
        esc.run.body(repo.c, "stitch/prod")
    assert "elsewhere.example" not in "\n".join(refused.value.lines()) + repo.everything_written()
    assert "environments/stitch/prod.yaml" in refused.value.next_step
    assert not any("pods" in argv for argv in repo.argvs("kubectl"))
