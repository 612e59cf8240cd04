"""`outputs.<service>`: what a stack exports."""

from __future__ import annotations

from invoke import Context

from runbooks.collection import each_service


@each_service()
def outputs(c: Context, names: tuple[str, ...]) -> None:
    """Show the outputs of {service}, secrets masked, with the URLs to open. Changes nothing."""
    from runbooks import applying
    from runbooks.lib.graph import by_name
    from runbooks.services import SERVICES
    from runbooks.session import open_session

    with open_session(c, f"outputs.{names[0]}") as session:
        for name in names:
            applying.show_outputs(session, by_name(SERVICES)[name])
