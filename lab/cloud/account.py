"""The account: one user, one organization."""

from __future__ import annotations

from dataclasses import dataclass

from lab.cloud.wire import Answer, Request, Route, not_found

USER = "lab"
ORGANIZATION = "organization"
"""The word that file backends use, so that stack references read the same on either."""


def require_organization(name: str) -> None:
    """Raises `ApiError` 404 for any other organization."""
    if name != ORGANIZATION:
        raise not_found(f"organization '{name}' not found")


@dataclass(frozen=True)
class Account:
    """What the CLI asks before anything else."""

    def routes(self) -> list[Route]:
        return [
            Route(method="GET", pattern="/api/user", answer=self.user),
            Route(method="GET", pattern="/api/user/organizations/default", answer=self.default_organization),
            Route(method="GET", pattern="/api/capabilities", answer=self.capabilities),
        ]

    def user(self, _request: Request) -> Answer:
        organization = {"githubLogin": ORGANIZATION, "name": ORGANIZATION}
        return Answer(
            content={
                "id": "1",
                "githubLogin": USER,
                "name": USER,
                "email": f"{USER}@localhost",
                "organizations": [organization],
            }
        )

    def default_organization(self, _request: Request) -> Answer:
        return Answer(content={"gitHubLogin": ORGANIZATION})

    def capabilities(self, _request: Request) -> Answer:
        """None: the CLI then sends whole checkpoints and no journal, and starts an update in two calls."""
        return Answer(content={"capabilities": []})
