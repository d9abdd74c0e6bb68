"""The client's end of the network: the line, transfers, and the loop of a client.

Nothing here needs the server's libraries, the store, or PyTorch.
"""

__all__: list[str] = []
