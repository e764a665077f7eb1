"""``outgate image``: what devboxes are made of, in this host's image store. As root; no server has to run."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from outgate.cli.connection import Json, StateDir
from outgate.cli.output import errors, print_fields, print_json, print_note, print_table
from outgate.runtime.image_import import import_image
from outgate.runtime.images import ImageStore, ImageSummary
from outgate.server.identity import require_root
from outgate.server.places import ensure_directories
from outgate.settings import load_settings

app = typer.Typer(no_args_is_help=True, help="Images that devboxes start from.")

_DIGEST_SHOWN = 19
"""``sha256:`` and twelve digits: enough to tell images apart."""
_MIB = 1 << 20

Reference = Annotated[str, typer.Argument(metavar="IMAGE", help="A name or a digest.")]


@app.command("import")
def import_(
    path: Annotated[Path, typer.Argument(exists=True, help="An OCI layout, or a tarball of one or of `docker save`.")],
    *,
    name: Annotated[
        list[str] | None, typer.Option("--name", help="Repeat it. \\[default: the names the image brings]")
    ] = None,
    json: Json = False,
    state_dir: StateDir = None,
) -> None:
    """Take an image into the store: unpacked, verified, all of it or nothing."""
    store = _open(state_dir)
    with errors.status(f"importing {path.name}"):
        summary = import_image(store, path, tuple(name or ()))
    if json:
        print_json(asdict(summary))
    else:
        print_fields({"names": " ".join(summary.names), "digest": summary.digest, "size": _size(summary)})


@app.command("list")
def list_(*, json: Json = False, state_dir: StateDir = None) -> None:
    """All images, by name."""
    summaries = _open(state_dir).summaries()
    if json:
        print_json([asdict(summary) for summary in summaries])
        return
    rows = [(" ".join(s.names), s.digest[:_DIGEST_SHOWN], s.layers, _size(s)) for s in summaries]
    print_table(("names", "digest", "layers", "size"), rows)


@app.command("alias")
def alias(
    name: Annotated[str, typer.Argument(help="The new name, as Dockerfiles say it: ubuntu:22.04.")],
    image: Reference,
    *,
    state_dir: StateDir = None,
) -> None:
    """Let a name mean this image, whatever it meant before. (In the other order too, when only the first exists.)"""
    store = _open(state_dir)
    known = {known for summary in store.summaries() for known in (summary.digest, *summary.names)}
    if name in known and image not in known:
        name, image = image, name
    store.alias(image, name)
    print_note(f"{name} is {image}")


@app.command("remove")
def remove(image: Reference, *, state_dir: StateDir = None) -> None:
    """Remove a name, and the image with its last name. Devboxes that run on it go on."""
    _open(state_dir).remove(image)
    print_note(f"removed {image}")


def _open(state_dir: Path | None) -> ImageStore:
    require_root("This command")
    settings = load_settings(state_dir=state_dir)
    ensure_directories(settings)
    store = ImageStore(settings.runtime_dir)
    store.ensure()
    return store


def _size(summary: ImageSummary) -> str:
    return f"{summary.size_bytes / _MIB:.1f} MiB"
