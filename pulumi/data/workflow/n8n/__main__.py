"""n8n: workflows, with the editor on the tailnet and the webhooks through the Cloudflare tunnel."""

import sys
from pathlib import Path

import pulumi

sys.path.append(str(Path(__file__).resolve().parents[3]))  # pulumi/, for lib

from exposure import editor, webhooks
from lib.database import app_database, read_server
from lib.k8s import namespace
from lib.settings import read_settings
from lib.storage import claim
from release import DATABASE_KEYS, FILES, core_secret, n8n_chart
from settings import Settings

settings = read_settings(Settings)

home = namespace(settings.namespace, opts=pulumi.ResourceOptions(protect=settings.protect))
database = app_database(
    "n8n",
    server=read_server(settings),
    password=settings.database_password,
    namespace=settings.namespace,
    secret_keys=DATABASE_KEYS,
    protect=settings.protect,
    after=home,
)
core = core_secret(settings, after=home)
files = claim(
    FILES,
    namespace=settings.namespace,
    size=settings.storage_size,
    storage_class=settings.storage_class,
    protect=settings.protect,
    after=home,
)
app = n8n_chart(settings, database, core, files)
editor(settings, after=app)
webhooks(settings, after=app)

pulumi.export("k8s_namespace", settings.namespace)
pulumi.export("editor_url", settings.chosen_editor_url)
pulumi.export("webhook_url", f"https://{settings.webhook_host}/")
