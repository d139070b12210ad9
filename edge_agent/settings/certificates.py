"""Certificate files of an encrypted link: found, readable, complete. Broker and devices say them by the same keys.

Source: the outside contract, section 2.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from edge_agent.configfile import Document, Problem
from edge_agent.settings.link import BadUrl, parse_link
from edge_agent.settings.schema import DeviceSection, MqttSection
from edge_agent.settings.settled import CertificateFiles
from edge_agent.settings.spot import Spot

TLS_KEYS: Final = ("ca_file", "cert_file", "key_file")


def certificate_files(
    spot: Spot, section: DeviceSection | MqttSection, problems: list[Problem]
) -> CertificateFiles:
    """The files that `section` names; adds what is wrong with them."""
    files = {key: _file(spot, key, getattr(section, key), problems) for key in TLS_KEYS}
    if (section.cert_file is None) != (section.key_file is None):
        given, missing = ("cert_file", "key_file") if section.cert_file else ("key_file", "cert_file")
        problems.append(
            spot.problem(f"`{given}` stands without `{missing}`", f"add {missing}", given, at_key=True)
        )
    return CertificateFiles(**files)


def device_certificates(
    document: Document, devices: Mapping[str, DeviceSection], problems: list[Problem]
) -> dict[str, CertificateFiles]:
    """The files of each encrypted link by its normalised URL; adds what is wrong. Devices of one link must agree."""
    found: dict[str, tuple[str, CertificateFiles]] = {}
    for name, device in devices.items():
        try:
            link = parse_link(device.url)
        except BadUrl:
            continue  # told where devices' links are checked
        spot = Spot(document, ("devices", name))
        files = certificate_files(spot, device, problems)
        if not link.is_tls:
            refuse_certificates(spot, files, link.scheme, "write modbus+tls://", problems)
            continue
        first, shared = found.setdefault(link.url, (name, files))
        problems += [
            spot.problem(
                f"`{key}` differs from that of {first}, which has the same url: both share one connection",
                f"write the same {key} in both",
                key,
            )
            for key in TLS_KEYS
            if getattr(shared, key) != getattr(files, key)
        ]
    return {url: files for url, (_, files) in found.items()}


def refuse_certificates(
    spot: Spot, files: CertificateFiles, scheme: str, mend: str, problems: list[Problem]
) -> None:
    """Add a problem for each file: a link of this scheme has no use for it."""
    problems += [
        spot.problem(f"`{key}` needs an encrypted link, not {scheme}", mend, key, at_key=True)
        for key in TLS_KEYS
        if getattr(files, key) is not None
    ]


def _file(spot: Spot, key: str, written: Path | None, problems: list[Problem]) -> Path | None:
    if written is None:
        return None
    path = spot.document.resolve(written)
    try:
        with path.open("rb"):
            return path
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "not a usable path"
        problems.append(
            spot.problem(f"`{key}`: {path} cannot be read: {reason}", "check path and permissions", key)
        )
        return None
