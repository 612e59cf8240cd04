"""JupyterHub: notebooks, on the tailnet."""

import sys
from pathlib import Path

import pulumi

sys.path.append(str(Path(__file__).resolve().parents[3]))  # pulumi/, for lib

from lib.database import app_database, read_server
from lib.ingress import tailnet_ingress
from lib.k8s import namespace
from lib.settings import read_settings
from release import DATABASE_KEYS, PORT, SERVICE, jupyterhub_chart
from settings import Settings
from tokens import own_secrets

settings = read_settings(Settings)
server = read_server(settings)

home = namespace(settings.namespace, opts=pulumi.ResourceOptions(protect=settings.protect))
database = app_database(
    "jupyterhub",
    server=server,
    password=settings.database_password,
    namespace=settings.namespace,
    secret_keys=DATABASE_KEYS,
    more_in_secret=own_secrets(settings),
    protect=settings.protect,
    after=home,
)
app = jupyterhub_chart(settings, server, database)
tailnet_ingress("jupyterhub", namespace=settings.namespace, host=settings.host, service=SERVICE, port=PORT, after=[app])

pulumi.export("k8s_namespace", settings.namespace)
pulumi.export("url", f"https://{settings.host}")
