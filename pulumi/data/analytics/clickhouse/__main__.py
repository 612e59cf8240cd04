"""ClickHouse: a database for analytics, run by the Altinity operator."""

import sys
from pathlib import Path

import pulumi

sys.path.append(str(Path(__file__).resolve().parents[3]))  # pulumi/, for lib

from installation import PORTS, host, installation
from lib.k8s import namespace
from lib.settings import read_settings
from release import operator_chart
from settings import Settings
from users import admin_login, operator_login, user_login

settings = read_settings(Settings)

home = namespace(settings.namespace, opts=pulumi.ResourceOptions(protect=settings.protect))
operator = operator_chart(settings, after=[operator_login(settings, after=home)])
installation(settings, after=[operator, admin_login(settings, after=home), user_login(settings, after=home)])

pulumi.export("host", host(settings))
pulumi.export("http_port", PORTS["http"])
pulumi.export("native_port", PORTS["tcp"])
pulumi.export("username", settings.user)
pulumi.export("password", settings.user_password)
pulumi.export("k8s_namespace", settings.namespace)
