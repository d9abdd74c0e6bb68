"""Who is there and who is asked: selection of clients. Pure."""

from anabranch.fleet.selection import select_uniform

__all__ = ["select_uniform"]
