"""The Cloudflare tunnel: puts Ingresses of the class cloudflare-tunnel on the public internet."""

import sys
from pathlib import Path

import pulumi

sys.path.append(str(Path(__file__).resolve().parents[3]))  # pulumi/, for lib

from lib.k8s import namespace
from lib.settings import read_settings
from release import INGRESS_CLASS, controller_chart, login_secret
from settings import Settings

settings = read_settings(Settings)

home = namespace(settings.namespace)
login = login_secret(settings, after=home)
controller_chart(settings, after=login)

pulumi.export("k8s_namespace", settings.namespace)
pulumi.export("ingress_class", INGRESS_CLASS)
pulumi.export("tunnel_name", settings.tunnel_name)
