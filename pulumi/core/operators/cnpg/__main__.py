"""The CloudNativePG operator: runs Postgres clusters."""

import sys
from pathlib import Path

import pulumi

sys.path.append(str(Path(__file__).resolve().parents[3]))  # pulumi/, for lib

from lib.k8s import namespace
from lib.settings import read_settings
from release import operator_chart
from settings import Settings

settings = read_settings(Settings)

home = namespace(settings.namespace)
operator_chart(settings, after=home)

pulumi.export("k8s_namespace", settings.namespace)
