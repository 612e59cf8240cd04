"""Programs of the recorded scenarios, written with the SDK's plain resource class so that they start fast."""

from __future__ import annotations

HEAD = """
import pulumi

def k8s(kind, name, parent=None, depends_on=None, protect=None, timeouts=None, **props):
    api, _, short = kind.rpartition(":")
    secret = ["data", "stringData"] if short == "Secret" else None
    api_version = api.removeprefix("core/")
    return pulumi.CustomResource(
        f"kubernetes:{kind}", name, {"apiVersion": api_version, "kind": short, "metadata": None, **props},
        pulumi.ResourceOptions(version="4.34.2", additional_secret_outputs=secret, protect=protect,
                               depends_on=depends_on, custom_timeouts=timeouts, parent=parent))

class Typed(pulumi.CustomResource):
    metadata: pulumi.Output[dict]
    def __init__(self, kind, name, **props):
        api, _, short = kind.rpartition(":")
        super().__init__(f"kubernetes:{kind}", name,
                         {"apiVersion": api.removeprefix("core/"), "kind": short, "metadata": None, **props},
                         pulumi.ResourceOptions(version="4.34.2"))

config = pulumi.Config()
"""

NAMESPACE = """
ns = Typed("core/v1:Namespace", "ns", metadata={"name": "rec-sample"})
space = ns.metadata.apply(lambda metadata: metadata["name"])
"""

LABELLED = """
ns = Typed("core/v1:Namespace", "ns", metadata={"name": "rec-sample", "labels": {"team": "%s"}})
space = ns.metadata.apply(lambda metadata: metadata["name"])
"""

CONFIG_MAP = """
cm = k8s("core/v1:ConfigMap", "cm", metadata={"name": "settings", "namespace": space}, data={"colour": "blue"})
"""

SECRET = """
sec = k8s("core/v1:Secret", "sec", metadata={"name": "login", "namespace": space},
          stringData={"password": config.require_secret("password")})
"""

EXPORTS = """
pulumi.export("namespace", space)
pulumi.export("password", config.require_secret("password"))
pulumi.export("port", 5432)
"""

BASE = HEAD + NAMESPACE + CONFIG_MAP + SECRET + EXPORTS
GREEN = CONFIG_MAP.replace("blue", "green")
CHANGED = HEAD + LABELLED % "a" + GREEN + EXPORTS
PROTECTED = GREEN.replace(" data=", " protect=True, data=")

PLAIN_EXPORTS = EXPORTS.replace('config.require_secret("password")', '"x"')

REFERENCE = """
import pulumi
producer = pulumi.StackReference(pulumi.Config().require("producer"))
"""

SLOW = """
k8s("apps/v1:Deployment", "slow", metadata={"name": "slow-%s", "namespace": space},
    spec={"replicas": 1, "selector": {"matchLabels": {"s": "s"}},
          "template": {"metadata": {"labels": {"s": "s"}}, "spec": {"containers": [{"name": "c", "image": "x"}]}}})
"""

WEB = """
web = k8s("apps/v1:Deployment", "web", metadata={"name": "web", "namespace": space},
    spec={"replicas": 1, "selector": {"matchLabels": {"w": "b"}},
          "template": {"metadata": {"labels": {"w": "b"}}, "spec": {"containers": [{"name": "c", "image": "x"}]}}})
"""

CHART = """
def add_wait(args):
    if args.type_ != "kubernetes:core/v1:ConfigMap":
        return None
    args.props["metadata"]["annotations"] = {"pulumi.com/waitFor": "jsonpath={.data.colour}"}
    return pulumi.ResourceTransformResult(args.props, args.opts)

class Chart(pulumi.ComponentResource):
    def __init__(self, name, args, opts):
        super().__init__("kubernetes:helm.sh/v4:Chart", name, args, opts, remote=True)

Chart("mini", {"chart": "mini", "namespace": space, "values": {"colour": "red"}},
      pulumi.ResourceOptions(version="4.34.2", transforms=[add_wait]))
"""
