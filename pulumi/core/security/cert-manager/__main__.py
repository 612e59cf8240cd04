"""cert-manager with two issuers: Let's Encrypt staging and production, both with DNS-01."""

import sys
from pathlib import Path

import pulumi

sys.path.append(str(Path(__file__).resolve().parents[3]))  # pulumi/, for lib

from issuers import SERVERS, cluster_issuers, token_secret
from lib.k8s import namespace
from lib.settings import read_settings
from release import manager_chart
from settings import Settings

settings = read_settings(Settings)

home = namespace(settings.namespace)
token = token_secret(settings, after=home)
manager = manager_chart(settings, after=home)
cluster_issuers(settings, after=(token, manager))

pulumi.export("k8s_namespace", settings.namespace)
pulumi.export("issuers", list(SERVERS))
