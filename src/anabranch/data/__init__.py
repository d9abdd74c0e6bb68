"""Sources with provenance cards, schemas and their mapping, partitioners, federated statistics."""

from anabranch.data.federation import Card, Examples, Federation, Ragged

__all__ = ["Card", "Examples", "Federation", "Ragged"]
