"""``outgate tls``: the local authority and the certificate of tunnels and of the API's name. As root."""

from typing import Annotated

import typer

from outgate import clock
from outgate.cli.connection import Json, StateDir
from outgate.cli.output import print_fields, print_json, print_note
from outgate.errors import SettingError
from outgate.server.certificates import TlsFiles, TlsNames, describe_certificate, ensure_tls_files, make_tls_files
from outgate.server.context import find_tunnel_domain
from outgate.server.identity import require_root
from outgate.server.places import ensure_directories
from outgate.settings import Settings, load_settings, variable_of

app = typer.Typer(no_args_is_help=True, help="Certificates for tunnels and https://api.<domain>.")


@app.command("make")
def make(
    *,
    renew: Annotated[bool, typer.Option("--renew", help="Make the certificate anew although it is good.")] = False,
    json: Json = False,
    state_dir: StateDir = None,
) -> None:
    """Make what is missing: a local authority, constrained to the domain, and a certificate. `serve` does the same."""
    settings, domain = _load(state_dir)
    if settings.tls_certificate is not None:
        raise SettingError(f"{variable_of('tls_certificate')} names a certificate already; unset it to have one made.")
    files = make_tls_files(settings, domain, clock.wall_ms(), is_renewal=renew)
    _show(files, domain, json=json)
    if renew and not json:
        print_note("A server that runs serves the new certificate after its next start.")


@app.command("show")
def show(*, json: Json = False, state_dir: StateDir = None) -> None:
    """What is served, until when, and which file clients have to trust (NODE_EXTRA_CA_CERTS, curl --cacert)."""
    settings, domain = _load(state_dir)
    _show(ensure_tls_files(settings, domain, clock.wall_ms()), domain, json=json)


def _load(state_dir: StateDir) -> tuple[Settings, str]:
    require_root("outgate tls")
    settings = load_settings(state_dir=state_dir)
    domain = find_tunnel_domain(settings)
    if domain is None:
        raise SettingError(f"Set {variable_of('tunnel_domain')} first, for example to tunnel.example.com.")
    ensure_directories(settings)
    return settings, domain


def _show(files: TlsFiles, domain: str, *, json: bool) -> None:
    described = describe_certificate(files.certificate)
    document = {
        "certificate": str(files.certificate),
        "key": str(files.key),
        "authority": None if files.authority is None else str(files.authority),
        "names": list(described.names),
        "not_after": described.not_after.isoformat(),
        "api": f"https://{TlsNames(domain).api}",
    }
    if json:
        print_json(document)
    else:
        print_fields({**document, "names": " ".join(described.names), "authority": document["authority"] or "(yours)"})
