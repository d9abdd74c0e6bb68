"""Anabranch: a federated-learning coordinator."""
