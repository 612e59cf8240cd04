"""Superset: charts and dashboards from databases, on the tailnet."""

import sys
from pathlib import Path

import pulumi

sys.path.append(str(Path(__file__).resolve().parents[3]))  # pulumi/, for lib

from cache import cache
from lib.database import app_database, read_server
from lib.ingress import tailnet_ingress
from lib.k8s import namespace
from lib.settings import read_settings
from release import CACHE_KEYS, DATABASE_KEYS, PORT, SERVICE, keys_secret, superset_chart
from settings import Settings

settings = read_settings(Settings)

home = namespace(settings.namespace)
database = app_database(
    "superset",
    server=read_server(settings),
    password=settings.database_password,
    namespace=settings.namespace,
    secret_keys=DATABASE_KEYS,
    more_in_secret=CACHE_KEYS,
    protect=settings.protect,
    after=home,
)
keys = keys_secret(settings, after=home)
valkey = cache(settings, after=home)
app = superset_chart(settings, database, after=[keys, valkey])
tailnet_ingress("superset", namespace=settings.namespace, host=settings.host, service=SERVICE, port=PORT, after=[app])

pulumi.export("k8s_namespace", settings.namespace)
pulumi.export("url", f"https://{settings.host}")
pulumi.export("admin_username", settings.admin_username)
