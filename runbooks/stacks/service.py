"""What a service is: one Pulumi project of the platform and what the runbooks need to know of it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class SecretSetting:
    """A secret a stack must have before it can be previewed, set with `inv secrets.set SERVICE KEY`."""

    key: str
    """As in the project's own namespace, or `namespace:key`."""
    about: str
    generated: bool = False
    """A random value will do (`--generate`); otherwise the user has to bring it. The lab generates every one."""


@dataclass(frozen=True, kw_only=True)
class Reference:
    """A stack reference that a program requires: `<organization>/<project of the producer>/<stack>`."""

    setting: str
    """Of the consumer's own namespace; it has no default."""
    producer: str
    """The service whose outputs it names."""
    outputs: tuple[str, ...] = ("ts_hostname|host", "port", "username", "password", "k8s_namespace")
    """What the program reads of them; `a|b` is either. As `pulumi/lib/database.py` asks for them."""


@dataclass(frozen=True, kw_only=True)
class EnvironmentKey:
    """A setting that a service's ESC environment has to provide, as a text that keeps its secretness."""

    key: str
    """As in the project's own namespace, or `namespace:key`."""
    is_secret: bool = False


@dataclass(frozen=True, kw_only=True)
class Service:
    """One Pulumi project of the platform and everything the runbooks need to know of it."""

    name: str
    folder: str
    """Below `pulumi/`."""
    project: str = ""
    """Pulumi's name for it; the folder's name when empty."""
    about: str
    namespace: str
    """The Kubernetes namespace it lives in by default."""
    needs: tuple[str, ...] = ()
    reads_outputs_of: tuple[str, ...] = ()
    """Those of `needs` whose stack outputs it reads, by stack reference or environment: until they have outputs, its
    preview would show made-up values, so it waits."""
    reference: Reference | None = None
    """How it reads those outputs: by stack reference, or"""
    environment: str = ""
    """by this ESC environment, `<project>/<env>`, which its stack files bind."""
    environment_keys: tuple[EnvironmentKey, ...] = ()
    """What that environment must provide: every setting of the program that has no default."""
    required: tuple[str, ...] = ()
    """Plain settings without a default that the stack files hold, besides the reference."""
    secrets: tuple[SecretSetting, ...] = ()
    stateful: bool = False
    checks: tuple[str, ...] = ()
    """Its checks, by their names in `runbooks/checks/of_service.py`; the generic ones when empty."""
    exposed: tuple[str, ...] = ()
    """Services and Ingresses it puts on the tailnet, as `svc/<name>` or `ingress/<name>` in its namespace."""

    @property
    def project_name(self) -> str:
        return self.project or self.folder.rsplit("/", 1)[-1]
