"""The Postgres cluster that every app shares, with superuser access and a name on the tailnet."""

import sys
from pathlib import Path

import pulumi

sys.path.append(str(Path(__file__).resolve().parents[3]))  # pulumi/, for lib

from cluster import SUPERUSER, host, pod_monitor, postgres_cluster, superuser_secret
from exposure import tailnet_service
from lib.k8s import namespace
from lib.settings import read_settings
from settings import Settings

settings = read_settings(Settings)

home = namespace(settings.namespace, opts=pulumi.ResourceOptions(protect=settings.protect))
superuser = superuser_secret(settings, after=home)
cluster = postgres_cluster(settings, after=superuser)
tailnet_service(settings, after=cluster)
if settings.monitoring:
    pod_monitor(settings, after=cluster)

pulumi.export("host", host(settings))
pulumi.export("port", settings.port)
pulumi.export("username", pulumi.Output.secret(SUPERUSER))
pulumi.export("user", pulumi.Output.secret(SUPERUSER))
pulumi.export("password", settings.superuser_password)
pulumi.export("ts_hostname", settings.ts_hostname)
pulumi.export("k8s_namespace", settings.namespace)
