"""`anabranch join`: the client's side of the network."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from anabranch.cli.attending import Joining, join_fleet

__all__ = ["join"]

Address = Annotated[
    str, typer.Argument(help="Of the coordinator; the one enrolled with, when left out.")
]
DataFolder = Annotated[
    Path | None, typer.Option("--data", metavar="DIR", help="This site's folder or file.")
]
PolicyFile = Annotated[
    Path | None, typer.Option("--policy", metavar="FILE", help="What this site takes part in.")
]
Token = Annotated[str, typer.Option("--token", help="Enrol first, with this token.")]
ClientName = Annotated[str, typer.Option("--name", help="Of this client, unless enrolled.")]
Home = Annotated[
    Path, typer.Option("--home", metavar="DIR", help="Identity, memory, log of this client.")
]
KeyFile = Annotated[
    Path | None,
    typer.Option("--key-file", metavar="FILE", help="Opens the home; not beside the data."),
]
Keyring = Annotated[bool, typer.Option("--keyring", help="The system's keyring opens the home.")]
Approvals = Annotated[
    list[str] | None,
    typer.Option("--approve", metavar="DIGEST", help="Agree to this contract; repeatable."),
]
Authorities = Annotated[
    Path | None, typer.Option("--ca", metavar="FILE", help="Trusted authorities (PEM).")
]
Proxy = Annotated[str | None, typer.Option("--proxy", metavar="URL", help="HTTP(S) proxy.")]
Engine = Annotated[str, typer.Option("--engine", help="How models are trained here.")]
Patience = Annotated[
    float | None,
    typer.Option("--patience", metavar="SECONDS", help="Give up without contact (never)."),
]
ReportDevice = Annotated[
    bool,
    typer.Option("--report-device", help="Tell times, energy, battery and speed of tasks."),
]
DeviceClass = Annotated[
    str, typer.Option("--device", help="With it: this device's class, such as entry.")
]
Network = Annotated[str, typer.Option("--network", help="With it: 2g, 3g, 4g, 5g or wifi.")]


def join(
    url: Address = "",
    data: DataFolder = None,
    policy: PolicyFile = None,
    token: Token = "",
    name: ClientName = "",
    home: Home = Path("client"),
    key_file: KeyFile = None,
    keyring: Keyring = False,
    approve: Approvals = None,
    authority: Authorities = None,
    proxy: Proxy = None,
    engine: Engine = "auto",
    patience: Patience = None,
    report_device: ReportDevice = False,
    device: DeviceClass = "",
    network: Network = "",
) -> None:
    """Work for every run of a fleet, with this site's own data. Rows never leave.

    The home is opened with what it was made with: a passphrase (variable ANABRANCH_PASSPHRASE), the
    keyring, or a key file, which goes with the user's settings unless you say where. Ctrl-C ends
    the client after its task.
    """
    join_fleet(
        Joining(
            url=url,
            data=data,
            policy=policy,
            token=token,
            name=name,
            home=home,
            key_file=key_file,
            keyring=keyring,
            approve=tuple(approve or ()),
            authority=authority,
            proxy=proxy,
            engine=engine,
            patience=patience,
            report_device=report_device,
            device=device,
            network=network,
        ),
        typer.BadParameter,
    )
