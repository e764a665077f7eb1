import httpx


def test_the_document_describes_every_route_of_ours(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    assert document["openapi"] == "3.1.0"
    assert document["security"] == [{"bearer": []}]
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            where = f"{method} {path}"
            assert "422" not in operation["responses"], where
            assert not [key for key in operation if key.startswith("x-")], where
            if path.startswith("/v1/"):
                assert {"200", "400", "401", "403", "500", "503"} <= set(operation["responses"]), where
            if "{" in path:
                assert "404" in operation["responses"], where
    text = client.get("/openapi.json").text
    for reference in {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}:
        assert reference in document["components"]["schemas"]
