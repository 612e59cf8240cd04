"""Every table that a task prints fits a terminal of 80 columns, and loses nothing there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest
from rich.text import Text

from lab.platform.report import COLUMNS as LAB
from lab.platform.report import TOOL_COLUMNS
from runbooks.checks import cf_tunnel, tailscale
from runbooks.core.mask import Masker
from runbooks.core.reporter import LiveReporter
from runbooks.services import SERVICES
from runbooks.stacks.service import layers
from runbooks.stacks.status import COLUMNS as STATUS
from runbooks.tasks import doctor, graph
from tests.fixtures import Typed

IN_CLUSTER = "postgresql-cluster-rw.postgresql.svc.cluster.local"
EXPOSED = "postgresql/postgresql-cluster-rw-ext"
SET = "./inv --target home secrets.set cert-manager cloudflare_api_token"
CACHE = "/home/person/.cache/homelab-ops/bin/kube-controller-manager-v1.36.3-0a1b2c3d4e5f"
WIDEST: dict[str, tuple[Sequence[str], Sequence[Sequence[str]]]] = {
    "status": (
        STATUS,
        [
            ("cert-manager", "mx", "2026-11-30 17:12 UTC", "136", "none", "free", "3 of 3"),
            ("postgres", "mx", "cannot be read", "24", "2: ./inv cancel.postgres",
             "person@laptop, pid 12345, since 2026-11-30 17:12 UTC", "1 of 1"),
        ],
    ),
    "doctor": (
        doctor.COLUMNS,
        [
            ("plugin kubernetes", "failed", "4.33.1 is not in /home/person/.pulumi/plugins",
             "pulumi plugin install resource kubernetes 4.33.1"),
            ("secrets of cert-manager", "failed", "cert-manager:cloudflare_api_token is missing", SET),
        ],
    ),
    "graph": (graph.COLUMNS, list(graph.rows(layers([service.name for service in SERVICES], SERVICES)))),
    "lab.status": (LAB, [("postgres immich/immich-cluster", "1234567", "21953", "1512 MB", "starting", "v1.36.3")]),
    "lab.status, tools": (TOOL_COLUMNS, [("kube-controller-manager", "v1.36.3", CACHE)]),
    "esc.list": (
        ("environment", "backend", "file", "bound by"),
        [("homelab/production", "not applied", "environments/homelab/production.yaml", "stitch, n8n, temporal")],
    ),
    "esc.open": (
        ("path", "kind", "value", "from"),
        [
            ('pulumiConfig["stitch:twitch_client_secret"]', "string", "[secret]", "stitch/prod"),
            ("pulumiConfig.POSTGRES_HOST", "string", IN_CLUSTER, "fn::open::pulumi-stacks"),
        ],
    ),
    "verify.tailscale": (
        ("object", "tailnet name", *tailscale.EXPOSURE_CHECKS),
        [(EXPOSED, "postgres.tail1234.ts.net", *["FAIL"] * len(tailscale.EXPOSURE_CHECKS))],
    ),
    "verify.cf-tunnel": (
        ("object", "address", *cf_tunnel.COLUMNS),
        [("n8n/n8n-webhooks", "https://hooks.example.org/webhook", *["FAIL"] * len(cf_tunnel.COLUMNS))],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WIDEST)
def test_a_table_fits_80_columns(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, value in {"TERM": "xterm-256color", "COLUMNS": "80"}.items():
        monkeypatch.setenv(variable, value)
    columns, rows = WIDEST[name]
    out = Typed()
    LiveReporter(Masker(), out, out).table(name, columns, rows)
    printed = Text.from_ansi(out.getvalue()).plain
    assert max(map(len, printed.splitlines())) <= 80
    wanted = Counter("".join([name, *columns, *(cell for row in rows for cell in row)]))
    shown = Counter(printed.replace("─", ""))
    del wanted[" "], shown[" "], shown["\n"]
    assert shown == wanted, "each character of each cell is shown"
    names = [row[0] for row in rows]
    assert max(map(len, names)) > 80 // 3 or all(name in printed for name in names)
