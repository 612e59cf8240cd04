"""Immich: photos and videos, on the tailnet, with its database in the shared Postgres."""

import sys
from pathlib import Path

import pulumi

sys.path.append(str(Path(__file__).resolve().parents[3]))  # pulumi/, for lib

from lib.database import app_database, read_server
from lib.ingress import tailnet_ingress
from lib.k8s import namespace
from lib.settings import read_settings
from lib.storage import claim
from release import DATABASE_KEYS, LIBRARY, PORT, SERVICE, immich_chart
from settings import Settings

settings = read_settings(Settings)
if settings.left_out:
    pulumi.log.warn(f"immich:extensions leaves out {', '.join(settings.left_out)}: add it if the server has it")

home = namespace(settings.namespace, opts=pulumi.ResourceOptions(protect=settings.protect))
database = app_database(
    "immich",
    server=read_server(settings),
    password=settings.database_password,
    namespace=settings.namespace,
    secret_keys=DATABASE_KEYS,
    extensions=settings.all_extensions,
    protect=settings.protect,
    after=home,
)
library = claim(
    LIBRARY,
    namespace=settings.namespace,
    size=settings.library_size,
    storage_class=settings.storage_class,
    protect=settings.protect,
    after=home,
)
app = immich_chart(settings, database, library)
tailnet_ingress("immich", namespace=settings.namespace, host=settings.host, service=SERVICE, port=PORT, after=[app])

pulumi.export("k8s_namespace", settings.namespace)
pulumi.export("url", f"https://{settings.host}")
pulumi.export("database_host", database.host)
pulumi.export("extensions", list(settings.all_extensions))
