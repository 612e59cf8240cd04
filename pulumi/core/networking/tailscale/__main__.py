"""The Tailscale operator: puts Services, Ingresses and the Kubernetes API on the tailnet."""

import sys
from pathlib import Path

import pulumi

sys.path.append(str(Path(__file__).resolve().parents[3]))  # pulumi/, for lib

from lib.k8s import namespace
from lib.settings import read_settings
from release import INGRESS_CLASS, oauth_secret, operator_chart
from settings import Settings

settings = read_settings(Settings)

# Proxy pods are privileged: they set up routing in their network namespace.
home = namespace(settings.namespace, pod_security="privileged")
oauth = oauth_secret(settings, after=home)
operator_chart(settings, after=oauth)

pulumi.export("k8s_namespace", settings.namespace)
pulumi.export("ingress_class", INGRESS_CLASS)
pulumi.export("api_server_proxy_mode", settings.api_server_proxy_mode)
