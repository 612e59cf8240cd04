"""The platform's alerts, as one PrometheusRule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import pulumi
from dashboards import LAST_BACKUP
from lib.k8s import labels
from pulumi_kubernetes.apiextensions import CustomResource
from pulumi_kubernetes.helm.v4 import Chart
from settings import Settings

NAME = "homelab-ops"
Severity = Literal["critical", "warning"]


@dataclass(frozen=True, kw_only=True)
class Alert:
    """One alert: when it fires, its severity, its meaning, and the first command to run."""

    name: str
    expression: str
    """PromQL; the alert fires for every series in the result."""
    holds_for: str
    severity: Severity
    summary: str
    look: str
    """The next safe command."""

    def rule(self) -> dict[str, Any]:
        return {
            "alert": self.name,
            "expr": self.expression,
            "for": self.holds_for,
            "labels": {"severity": self.severity},
            "annotations": {"summary": self.summary, "description": f"Look: {self.look}"},
        }


def alert_rules(settings: Settings, *, after: Chart) -> CustomResource:
    """Create the rule after the chart, which installs the CRD."""
    alerts = [
        postgres_down(settings),
        postgres_silent(),
        backup_too_old(settings),
        certificate_near_its_end(settings),
        claim_nearly_full(settings),
        proxy_down(settings),
        operator_down(settings),
        tunnel_down(settings),
        ingress_exposure_lost(settings),
        service_exposure_lost(settings),
    ]
    return CustomResource(
        NAME,
        api_version="monitoring.coreos.com/v1",
        kind="PrometheusRule",
        metadata={"name": NAME, "namespace": settings.namespace, "labels": labels(NAME)},
        spec={"groups": [{"name": NAME, "rules": [alert.rule() for alert in alerts]}]},
        opts=pulumi.ResourceOptions(depends_on=[after]),
    )


def postgres_down(settings: Settings) -> Alert:
    """Use Kubernetes' own metrics, so that it also fires if the server is not scraped or does not exist."""
    pods = f'namespace="{settings.postgres_namespace}",pod=~"postgresql-cluster-[0-9]+",condition="true"'
    return Alert(
        name="PostgresDown",
        expression=f"(sum(kube_pod_status_ready{{{pods}}}) or vector(0)) == 0",
        holds_for="3m",
        severity="critical",
        summary="No Postgres instance is ready: every app that keeps data there is down.",
        look="inv verify.postgres",
    )


def postgres_silent() -> Alert:
    return Alert(
        name="PostgresNotAnswering",
        expression="cnpg_collector_up == 0",
        holds_for="3m",
        severity="critical",
        summary="The Postgres server in {{ $labels.namespace }}/{{ $labels.pod }} does not answer its own exporter.",
        look="inv verify.postgres",
    )


def backup_too_old(settings: Settings) -> Alert:
    """Fires if the last backup is too old or unknown."""
    newest = f"{{{LAST_BACKUP}}}"
    return Alert(
        name="PostgresBackupTooOld",
        expression=f"(time() - max({newest})) > {settings.backup_hours * 3600} or absent({newest})",
        holds_for="1h",
        severity="warning",
        summary=f"The last backup of Postgres is older than {settings.backup_hours} hours, or there is none.",
        look=f"kubectl -n {settings.postgres_namespace} get backups.postgresql.cnpg.io",
    )


def certificate_near_its_end(settings: Settings) -> Alert:
    seconds = settings.certificate_days * 86400
    return Alert(
        name="CertificateNearItsEnd",
        expression=f"(certmanager_certificate_expiration_timestamp_seconds - time()) < {seconds}",
        holds_for="1h",
        severity="warning",
        summary="Certificate {{ $labels.exported_namespace }}/{{ $labels.name }} was not renewed: "
        f"it is valid for less than {settings.certificate_days} days.",
        look="kubectl get certificates,certificaterequests,orders,challenges -A",
    )


def claim_nearly_full(settings: Settings) -> Alert:
    used = "(1 - kubelet_volume_stats_available_bytes / kubelet_volume_stats_capacity_bytes)"
    return Alert(
        name="ClaimNearlyFull",
        expression=f"100 * {used} > {settings.claim_percent}",
        holds_for="10m",
        severity="warning",
        summary="Claim {{ $labels.namespace }}/{{ $labels.persistentvolumeclaim }} is "
        "{{ $value | humanize }} percent full; a full disk stops Postgres.",
        look="kubectl get pvc -A",
    )


def proxy_down(settings: Settings) -> Alert:
    proxies = f'namespace="{settings.tailscale_namespace}",statefulset=~"ts-.+"'
    return Alert(
        name="TailscaleProxyDown",
        expression=f"kube_statefulset_status_replicas_ready{{{proxies}}} < kube_statefulset_replicas{{{proxies}}}",
        holds_for="5m",
        severity="critical",
        summary="Tailscale's proxy {{ $labels.statefulset }} is not ready: what it exposes cannot be reached.",
        look="inv verify.tailscale",
    )


def operator_down(settings: Settings) -> Alert:
    operator = f'namespace="{settings.tailscale_namespace}",deployment="operator"'
    return Alert(
        name="TailscaleOperatorDown",
        expression=f"(sum(kube_deployment_status_replicas_available{{{operator}}}) or vector(0)) == 0",
        holds_for="10m",
        severity="warning",
        summary="Tailscale's operator is not available: exposures stay as they are, and nothing new is exposed.",
        look="inv verify.tailscale",
    )


def tunnel_down(settings: Settings) -> Alert:
    """Fires only if connectors exist: the controller creates them with the first Ingress."""
    connectors = f'namespace="{settings.tunnel_namespace}",deployment="controlled-cloudflared-connector"'
    return Alert(
        name="CloudflareTunnelDown",
        expression=f"kube_deployment_status_replicas_available{{{connectors}}} == 0",
        holds_for="5m",
        severity="critical",
        summary="No connector of the Cloudflare tunnel is available: public names answer nothing.",
        look="inv verify.cf-tunnel",
    )


def ingress_exposure_lost(settings: Settings) -> Alert:
    return Alert(
        name="IngressExposureLost",
        expression='kube_ingress_info{ingressclass="tailscale"} unless on (namespace, ingress) '
        + proxies_of(settings, "ingress", "ingress"),
        holds_for="10m",
        severity="warning",
        summary="Ingress {{ $labels.namespace }}/{{ $labels.ingress }} has no proxy on the tailnet.",
        look="kubectl -n {{ $labels.namespace }} describe ingress {{ $labels.ingress }}",
    )


def service_exposure_lost(settings: Settings) -> Alert:
    return Alert(
        name="ServiceExposureLost",
        expression='kube_service_annotations{annotation_tailscale_com_expose="true"} unless on (namespace, service) '
        + proxies_of(settings, "svc", "service"),
        holds_for="10m",
        severity="warning",
        summary="Service {{ $labels.namespace }}/{{ $labels.service }} has no proxy on the tailnet.",
        look="kubectl -n {{ $labels.namespace }} describe service {{ $labels.service }}",
    )


def proxies_of(settings: Settings, type_: str, label: str) -> str:
    """Select the proxies of one type, labelled with namespace and name (as `label`) of the object they expose."""
    parent = "label_tailscale_com_parent_resource"
    proxies = f'kube_statefulset_labels{{namespace="{settings.tailscale_namespace}",{parent}_type="{type_}"}}'
    named = f'label_replace({proxies}, "{label}", "$1", "{parent}", "(.*)")'
    return f'label_replace({named}, "namespace", "$1", "{parent}_ns", "(.*)")'
