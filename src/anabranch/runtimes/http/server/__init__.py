"""The coordinator's end of the network: routes, desks, sessions, and what lies on the disk."""

__all__: list[str] = []
