"""Clients of a Flower fleet: our coordinator drives the Grid, our client answers its messages.

Needs the extra ``flower``. Nothing here is imported unless it is used: Flower's libraries have
upper bounds of their own. The component of an exported app are
`anabranch.runtimes.flower.client_app:client` and `anabranch.api.flower_app:server`.
"""

__all__: list[str] = []
