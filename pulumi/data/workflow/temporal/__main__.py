"""Temporal: durable workflows, with its web interface and its gRPC frontend on the tailnet."""

import sys
from pathlib import Path

import pulumi

sys.path.append(str(Path(__file__).resolve().parents[3]))  # pulumi/, for lib

from exposure import grpc, web
from lib.database import app_database, read_server
from lib.k8s import namespace
from lib.settings import read_settings
from release import DATABASE_KEYS, DATABASES, FRONTEND, GRPC_PORT, temporal_chart
from settings import Settings

settings = read_settings(Settings)

home = namespace(settings.namespace)
database = app_database(
    "temporal",
    server=read_server(settings),
    password=settings.database_password,
    namespace=settings.namespace,
    secret_keys=DATABASE_KEYS,
    databases=DATABASES,
    protect=settings.protect,
    after=home,
)
app = temporal_chart(settings, database)
web(settings, after=app)
grpc(settings, after=app)

pulumi.export("k8s_namespace", settings.namespace)
pulumi.export("url", f"https://{settings.host}")
pulumi.export("health_path", f"/api/v1/namespaces/{settings.namespaces[0]}")
pulumi.export("grpc_address", f"{settings.grpc_host}:{GRPC_PORT}")
pulumi.export("grpc_address_for_pods", f"{FRONTEND}.{settings.namespace}.svc.cluster.local:{GRPC_PORT}")
