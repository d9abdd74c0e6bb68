"""`anabranch device`: what this machine can tell of itself, and what is believed of classes."""

from __future__ import annotations

from typing import Annotated

import typer

from anabranch.cli.options import AsJson
from anabranch.cli.output import print_json, print_table, say

__all__ = ["device"]


def device(
    priors: Annotated[
        bool, typer.Option("--priors", help="What is believed of each class and network, and why.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """What this machine would report of its battery and energy; or the priors of simulations."""
    if priors:
        _priors(as_json=as_json)
        return
    from anabranch.client.battery import PowerSources
    from anabranch.fleet.devices.report import device_report

    state = PowerSources().state()
    found = {
        "battery": state.level,
        "charging": state.charging,
        "battery_joules": state.full,
    }
    device_report({k: v for k, v in found.items() if v is not None}, "this machine")
    found["processor_joules"] = state.processor
    if as_json:
        print_json(found)
        return
    for name, value in found.items():
        say(f"{name.replace('_', ' ')}: {'not known' if value is None else value}")


def _priors(*, as_json: bool) -> None:
    from anabranch.fleet.devices.classes import CLASSES
    from anabranch.fleet.devices.marks import Prior
    from anabranch.fleet.devices.network import NETWORKS

    rows = [
        (name, field, prior)
        for table in (CLASSES, NETWORKS)
        for name, entry in table.items()
        for field, prior in dict(entry).items()
        if isinstance(prior, Prior)
    ]
    if as_json:
        print_json(
            [{"of": of, "what": what, **prior.model_dump(mode="json")} for of, what, prior in rows]
        )
        return
    print_table(
        ("of", "what", "value", "unit", "mark", "source"),
        [
            (of, what, f"{prior.value:g}", prior.unit, prior.mark.value, prior.source)
            for of, what, prior in rows
        ],
    )
