"""Stitch: receives Twitch's EventSub webhooks. Every setting comes from the ESC environment stitch/prod."""

import sys
from pathlib import Path

import pulumi

sys.path.append(str(Path(__file__).resolve().parents[2]))  # pulumi/, for lib

from app import deployment, network_policy, registry_secret, service
from lib.k8s import namespace
from lib.settings import read_settings
from settings import ENVIRONMENT, Settings
from store import stitch_database
from twitch import twitch_secret, webhook

settings = read_settings(Settings, environment=ENVIRONMENT)

home = namespace(settings.namespace, pod_security="restricted")
database = stitch_database(settings, after=home)
twitch = twitch_secret(settings, after=home)
registry = registry_secret(settings, after=home)
policy = network_policy(settings, after=home)
pods = deployment(settings, database, twitch, after=[policy, *registry])
address = service(settings, after=pods)
webhook(settings, after=address)

pulumi.export("k8s_namespace", settings.namespace)
pulumi.export("webhook_url", settings.callback)
pulumi.export("health_path", settings.health_path)
pulumi.export("database", database.name)
