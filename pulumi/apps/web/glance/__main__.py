"""Glance: the start page of the platform, on the tailnet."""

import sys
from pathlib import Path

import pulumi

sys.path.append(str(Path(__file__).resolve().parents[3]))  # pulumi/, for lib

from lib.k8s import namespace
from lib.settings import read_settings
from server import config_map, deployment, ingress, service
from settings import Settings

settings = read_settings(Settings)

home = namespace(settings.namespace, pod_security="restricted")
config = config_map(settings, after=home)
pods = deployment(settings, after=config)
address = service(settings, after=pods)
ingress(settings, after=address)

pulumi.export("k8s_namespace", settings.namespace)
pulumi.export("url", settings.url)
