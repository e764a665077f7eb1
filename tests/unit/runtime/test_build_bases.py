"""The store of images that builds find: names, ids and notes as containers/storage has them."""

import hashlib
import json
from pathlib import Path

import pytest

from outgate.runtime.build_bases import (
    BaseStore,
    BuildBase,
    chain_layers,
    data_file_name,
    reference_names,
    render_store,
)

LOW, HIGH = Path("/store/layers/sha256-aa"), Path("/store/layers/sealed-bb")


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("ubuntu:22.04", ("localhost/ubuntu:22.04", "docker.io/library/ubuntu:22.04")),
        ("ubuntu", ("localhost/ubuntu:latest", "docker.io/library/ubuntu:latest")),
        ("team/base:1", ("localhost/team/base:1", "docker.io/team/base:1")),
        ("docker.io/ubuntu:22.04", ("docker.io/library/ubuntu:22.04",)),
        ("docker.io/team/base", ("docker.io/team/base:latest",)),
        ("registry.example:5000/a/b:x", ("registry.example:5000/a/b:x",)),
        ("localhost/own", ("localhost/own:latest",)),
        ("Upper/case", ()),
        ("ubuntu@sha256-0", ()),
        ("a//b", ()),
        (":tag", ()),
        ("two words", ()),
        ("ubuntu:22.04\n", ()),
    ],
)
def test_names_are_found_as_dockerfiles_say_them(name: str, found: tuple[str, ...]) -> None:
    assert reference_names(name) == found


def test_a_chain_has_the_ids_that_containers_storage_computes() -> None:
    base = BuildBase("sha256:1", ("stock",), (LOW, HIGH), ("/usr",))
    host, low, high = chain_layers(base)
    assert (host.source, host.host_directories) == (None, ("/usr",))
    assert (low.source, high.source) == (LOW, HIGH)
    assert host.id == host.diff_id
    assert low.id == hashlib.sha256(f"{host.id}+{low.diff_id}".encode()).hexdigest()
    assert (host.parent, low.parent, high.parent) == (None, host.id, low.id)


def test_a_shared_layer_is_stored_once_and_says_what_lies_below_it() -> None:
    small = BuildBase("sha256:1", ("small",), (LOW,))
    large = BuildBase("sha256:2", ("large:2",), (LOW, HIGH), environment={"A": "b=c"})
    store = render_store((small, large))
    low, high = chain_layers(large)
    assert [layer.id for layer in store.layers] == [low.id, high.id]
    assert store.links == {"overlay/l/0": f"../{low.id}/diff", "overlay/l/1": f"../{high.id}/diff"}
    assert store.files[f"overlay/{high.id}/lower"] == b"l/0"
    assert f"overlay/{low.id}/lower" not in store.files
    assert BaseStore.mount_point(high) == f"overlay/{high.id}/diff"
    images = {image["names"][0]: image for image in json.loads(store.files["overlay-images/images.json"])}
    assert images["localhost/small:latest"]["layer"] == low.id
    assert images["localhost/large:2"]["layer"] == high.id
    assert len({image["id"] for image in images.values()}) == 2


def test_every_datum_of_an_image_is_there_under_its_digest() -> None:
    store = render_store((BuildBase("sha256:1", ("small",), (LOW,), environment={"A": "b"}),))
    (image,) = json.loads(store.files["overlay-images/images.json"])
    for key, digest in image["big-data-digests"].items():
        data = store.files[f"overlay-images/{image['id']}/{data_file_name(key)}"]
        assert f"sha256:{hashlib.sha256(data).hexdigest()}" == digest
        assert len(data) == image["big-data-sizes"][key]
    manifest = json.loads(store.files[f"overlay-images/{image['id']}/manifest"])
    configuration = store.files[f"overlay-images/{image['id']}/{data_file_name(manifest['config']['digest'])}"]
    assert json.loads(configuration)["config"]["Env"] == ["A=b"]
    raw_manifest = store.files[f"overlay-images/{image['id']}/manifest"]
    assert image["digest"] == f"sha256:{hashlib.sha256(raw_manifest).hexdigest()}"


def test_keys_that_are_no_plain_names_are_written_in_base64() -> None:
    assert data_file_name("manifest") == "manifest"
    assert data_file_name("sha256:ab") == "=c2hhMjU2OmFi"
    assert data_file_name("=x") == "=PXg="
