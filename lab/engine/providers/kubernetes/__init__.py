"""The ``kubernetes`` provider: objects on the lab's API server, charts through helm.

``provider`` is the engine's view; ``operations`` changes objects, ``readiness`` waits for them, ``components`` builds
charts and config groups, ``client`` and ``discovery`` talk to the server.
"""

from lab.engine.providers.kubernetes.provider import create_provider

__all__ = ["create_provider"]
