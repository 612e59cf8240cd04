"""How a person gets a tool that is missing: the next step of the error that says so."""

from __future__ import annotations

INSTALL = {
    "pulumi": "install it: curl -fsSL https://get.pulumi.com | sh, or brew install pulumi/tap/pulumi",
    "kubectl": "install it: https://kubernetes.io/docs/tasks/tools/, or brew install kubectl",
    "helm": "install it: https://helm.sh/docs/intro/install/, or brew install helm",
    "esc": "install it: https://www.pulumi.com/docs/esc/cli/, or brew install pulumi/tap/esc",
    "uv": "install it: https://docs.astral.sh/uv/getting-started/installation/, or brew install uv",
}
