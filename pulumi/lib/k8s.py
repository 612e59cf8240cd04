"""Kubernetes helpers that the programs share: labels, namespaces, Secrets, and how long to wait for readiness."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast

import pulumi
from pulumi_kubernetes.core.v1 import Namespace, Secret

PodSecurity = Literal["privileged", "baseline", "restricted"]


def labels(name: str) -> dict[str, str]:
    """Return the labels of an object of the component `name`."""
    return {
        "app.kubernetes.io/name": name,
        "app.kubernetes.io/part-of": "homelab-ops",
        "app.kubernetes.io/managed-by": "pulumi",
    }


def namespace(
    name: str, *, pod_security: PodSecurity | None = None, opts: pulumi.ResourceOptions | None = None
) -> Namespace:
    """Create a namespace called exactly `name`; admission enforces the level `pod_security` for its pods."""
    enforced: dict[str, str] = {"pod-security.kubernetes.io/enforce": pod_security} if pod_security else {}
    return Namespace(name, opts, metadata={"name": name, "labels": {**labels(name), **enforced}})


def opaque_secret(
    name: str, *, namespace: str, component: str, data: Mapping[str, pulumi.Input[str]], after: pulumi.Resource
) -> Secret:
    """Create a Secret for `component` with `data` as strings. Charts get its name."""
    return Secret(
        name,
        metadata={"name": name, "namespace": namespace, "labels": labels(component)},
        type="Opaque",
        string_data=dict(data),
        opts=pulumi.ResourceOptions(depends_on=[after]),
    )


def wait_annotations(wait_for: str | Sequence[str] | None = None, timeout: int | None = None) -> dict[str, str]:
    """Return annotations that define when pulumi regards an object as ready, and after how many seconds it fails.

    `wait_for`: `condition=Type[=Status]`, `jsonpath={.path}[=value]`, or several of them that must all hold. It
    replaces the provider's own wait for that object; for custom resources the provider does not wait.
    Source: pulumi-kubernetes, provider/pkg/metadata/annotations.go.
    """
    conditions = [wait_for] if isinstance(wait_for, str) else list(wait_for or ())
    for condition in conditions:
        if not condition.startswith(("condition=", "jsonpath={")):
            raise ValueError(
                f"cannot wait for {condition!r}: expected condition=Type[=Status] or jsonpath={{.path}}[=value]"
            )
    annotations = {}
    if conditions:
        annotations["pulumi.com/waitFor"] = conditions[0] if len(conditions) == 1 else json.dumps(conditions)
    if timeout is not None:
        annotations["pulumi.com/timeoutSeconds"] = str(timeout)
    return annotations


def add_wait_annotation(
    kind: str, *, wait_for: str | Sequence[str] | None = None, timeout: int | None = None
) -> pulumi.ResourceTransform:
    """Return a transform that makes pulumi wait for objects of `kind`, for `ResourceOptions(transforms=[…])`.

    On a chart it applies to the chart's objects, unlike the older `transformations`. For `wait_for` see
    `wait_annotations`; without it the provider's own wait stays and only the `timeout` (seconds) changes.
    """
    return _annotate(kind, wait_annotations(wait_for, timeout))


def keep_on_destroy(kind: str) -> pulumi.ResourceTransform:
    """Return a transform that keeps objects of `kind` in the cluster when their stack drops them or is destroyed.

    The next installation finds them there, written by another field manager. The annotation lets it adopt them even if
    a newer chart changes their contents: a provider before 4.29 does so on every create, a newer one with
    `kubernetes:upsertExistingObjects`, which the user sets for that one deployment.
    """
    return _annotate(kind, {"pulumi.com/patchForce": "true"}, pulumi.ResourceOptions(retain_on_delete=True))


def protect_objects(kind: str) -> pulumi.ResourceTransform:
    """Return a transform that sets `protect` on a chart's objects of `kind`: pulumi refuses to delete them."""
    return _annotate(kind, {}, pulumi.ResourceOptions(protect=True))


def _annotate(
    kind: str, added: Mapping[str, str], options: pulumi.ResourceOptions | None = None
) -> pulumi.ResourceTransform:
    # Metadata is plain here: of a chart's objects, only the data of a Secret arrives as an output.

    def transform(args: pulumi.ResourceTransformArgs) -> pulumi.ResourceTransformResult | None:
        if args.type_.rpartition(":")[2] != kind:
            return None
        metadata = cast(Mapping[str, Any], args.props.get("metadata") or {})
        annotations = {**(metadata.get("annotations") or {}), **added}
        props = {**args.props, "metadata": {**metadata, "annotations": annotations}}
        return pulumi.ResourceTransformResult(props=props, opts=pulumi.ResourceOptions.merge(args.opts, options))

    return transform


def fill_secret(name: str, data: Mapping[str, pulumi.Output[str]]) -> pulumi.ResourceTransform:
    """Return a transform that puts `data` into a chart's Secret `name`, replacing what the chart wrote there.

    For charts that read a token from their values only: they get a placeholder, and this transform puts the token in.
    Fails with a `pulumi.RunError` if the chart's Secret has no such key, because the placeholder would stay in use.
    """

    def transform(args: pulumi.ResourceTransformArgs) -> pulumi.ResourceTransformResult | None:
        metadata = cast(Mapping[str, Any], args.props.get("metadata") or {})
        if args.type_.rpartition(":")[2] != "Secret" or metadata.get("name") != name:
            return None
        # A Secret's data arrives as an output, which may be unknown in a preview.
        given = pulumi.Output.from_input(_without_secret_mark(args.props.get("data")))
        filled = pulumi.Output.all(given, pulumi.Output.all(**data)).apply(lambda both: _fill(name, *both))
        props = {**args.props, "data": pulumi.Output.secret(filled)}
        return pulumi.ResourceTransformResult(props=props, opts=args.opts)

    return transform


def _fill(name: str, given: Mapping[str, str] | None, data: Mapping[str, str]) -> dict[str, str]:
    if missing := sorted(set(data) - set(given or {})):
        raise pulumi.RunError(f"the chart's Secret {name} has no key {', '.join(missing)} to fill")
    return {**(given or {}), **{key: base64.b64encode(text.encode()).decode() for key, text in data.items()}}


SECRET_MARK = "4dabf18193072939515e22adb298388d"  # noqa: S105 - pulumi's mark of a secret on the wire
"""Source: pulumi/pulumi, sdk/go/common/resource/properties.go."""


def _without_secret_mark(value: Any) -> Any:
    """Unwrap a secret: the SDK leaves the mark in place if the engine marks secrets instead of passing outputs."""
    return value["value"] if isinstance(value, Mapping) and SECRET_MARK in value else value
