"""The whole API of one folder: state, evaluator and routes, without a socket."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from lab.cloud import keys
from lab.cloud.environment_store import EnvironmentStore
from lab.cloud.environments import Environments
from lab.cloud.evaluator import Evaluator, Unanswerable
from lab.cloud.keys import Keys
from lab.cloud.revisions import Revisions
from lab.cloud.stack_store import StackStore
from lab.cloud.stacks import Stacks
from lab.cloud.updates import Updates
from lab.cloud.wire import ORGANIZATION, USER, Answer, ApiError, Json, Route


@dataclass(frozen=True)
class Api:
    """Finds the route of a call and checks its token."""

    keys: Keys
    routes: tuple[Route, ...]
    evaluator: Evaluator
    _by_length: dict[tuple[str, int], list[Route]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for route in self.routes:
            length = len(route.pattern.strip("/").split("/"))
            self._by_length.setdefault((route.method, length), []).append(route)
        for routes in self._by_length.values():
            # `versions/tags` before `versions/{version}`.
            routes.sort(key=lambda route: [part.startswith("{") for part in route.pattern.strip("/").split("/")])

    def find(self, method: str, path: str) -> tuple[Route, dict[str, str]] | None:
        """The route of a call and the names in its path: the most literal that fits. None when there is none."""
        # The vendor's Python client writes `open//<id>`.
        segments = tuple(segment for segment in path.split("/") if segment)
        for route in self._by_length.get((method, len(segments)), ()):
            params = route.match(segments)
            if params is not None:
                return route, params
        return None

    def is_account(self, authorization: str) -> bool:
        """The header carries the account's token."""
        scheme, _, token = authorization.partition(" ")
        return scheme == "token" and hmac.compare_digest(token.encode(), self.keys.token.encode())


def account_routes() -> list[Route]:
    """What the CLI asks before anything else: one user, one organization."""
    organization = {"githubLogin": ORGANIZATION, "name": ORGANIZATION}
    user = {"id": "1", "githubLogin": USER, "name": USER, "email": f"{USER}@localhost", "organizations": [organization]}
    answers: dict[str, Json] = {
        "/api/user": user,
        "/api/user/organizations/default": {"gitHubLogin": ORGANIZATION},
        # None: the CLI then sends whole checkpoints and no journal, and starts an update in two calls.
        "/api/capabilities": {"capabilities": []},
    }
    return [
        Route(method="GET", pattern=path, answer=lambda _, content=content: Answer(content=content))  # type: ignore[misc]
        for path, content in answers.items()
    ]


def build(folder: Path, find_evaluator: Callable[[], Path]) -> Api:
    """The API on the state below `folder`, made when missing; the evaluator starts when it is first needed."""
    own = keys.ensure(folder)
    stacks = Stacks(StackStore(folder / "stacks"), own.stacks)
    store = EnvironmentStore(folder / "environments")

    def definition(name: str) -> str:
        try:
            return store.imported(name)
        except ApiError as error:
            raise Unanswerable(f'environment "{name}" not found') from error

    evaluator = Evaluator(find_evaluator, own.environments, definition, stacks.outputs)
    parts = (stacks, Updates(stacks.store, own), Environments(store, evaluator), Revisions(store))
    return Api(own, (*account_routes(), *(route for part in parts for route in part.routes())), evaluator)
