"""The public API for the command line: JSON objects as the server sent them, errors as exceptions."""

import contextlib
import json
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Final, Self
from urllib.parse import quote

import httpx

from outgate.client.transport import PeerRefusedError, PeerUnreachableError, checked

JsonObject = dict[str, Any]

_ANSWER_WAIT_S: Final = 60.0
"""An update waits up to 25 s for enforcement, an execution as long; twice that and some room."""
_PAGE_SIZE: Final = 100
_LONG_POLL_S: Final = 25
_SECRETS_LISTED: Final = "5000"
"""The most that a page holds; this list has no further ones."""
_TRANSFER_TIMEOUT: Final = httpx.Timeout(60.0, connect=5.0)
"""For each piece of an object's bytes, not for all of them."""
_REQUEST_TIMEOUT: Final = 408
"""The long polls' answer when nothing happened (the founding contract; RFC 9110 §15.5.9)."""


class OutgateClient:
    """One account's view of a server.

    Every method raises :class:`PeerUnreachableError` when nobody answers, and
    :class:`PeerRefusedError`, whose message is the server's own.
    """

    def __init__(self, url: str, api_key: str, *, transport: httpx.BaseTransport | None = None) -> None:
        self._url = url
        self._client = httpx.Client(
            base_url=url,
            headers={"authorization": f"Bearer {api_key}"},
            timeout=httpx.Timeout(_ANSWER_WAIT_S, connect=5.0),
            transport=transport,
            trust_env=False,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def get_account(self) -> JsonObject:
        """The account that the key belongs to."""
        return self._call("GET", "/v1/accounts/me")

    def create_policy(self, body: Mapping[str, object]) -> JsonObject:
        """The view of a new policy."""
        return self._call("POST", "/v1/network-policies", body)

    def get_policy(self, policy_id: str) -> JsonObject:
        """The view of a policy."""
        return self._call("GET", f"/v1/network-policies/{policy_id}")

    def list_policies(self, **filters: str) -> Iterator[JsonObject]:
        """Every policy of the account, newest first; ``filters`` such as ``name`` go to the server."""
        return self._pages("/v1/network-policies", "network_policies", filters)

    def update_policy(self, policy_id: str, body: Mapping[str, object]) -> JsonObject:
        """The view after a partial update."""
        return self._call("POST", f"/v1/network-policies/{policy_id}", body)

    def delete_policy(self, policy_id: str) -> JsonObject:
        """The view of the deleted policy."""
        return self._call("POST", f"/v1/network-policies/{policy_id}/delete", {})

    def explain_policy(self, policy_id: str, body: Mapping[str, object]) -> JsonObject:
        """The verdict on one flow: ``body`` names a hostname or address, a port and a protocol."""
        return self._call("POST", f"/v1/network-policies/{policy_id}/explain", body)

    def list_revisions(self, policy_id: str, *, limit: int) -> list[JsonObject]:
        """The latest versions of a policy, newest first."""
        page = self._call("GET", f"/v1/network-policies/{policy_id}/revisions", params={"limit": str(limit)})
        revisions: list[JsonObject] = page["revisions"]
        return revisions

    def diff_revisions(self, policy_id: str, revision: int, against: int | None) -> JsonObject:
        """What a version says otherwise than version ``against``, or than the one before."""
        params = {} if against is None else {"against": str(against)}
        return self._call("GET", f"/v1/network-policies/{policy_id}/revisions/{revision}/diff", params=params)

    def restore_policy(self, policy_id: str, revision: int) -> JsonObject:
        """The view of a policy that has the rules of version ``revision`` again."""
        return self._call("POST", f"/v1/network-policies/{policy_id}/restore", {"revision": revision})

    def explain_devbox(self, devbox_id: str, body: Mapping[str, object]) -> JsonObject:
        """The verdict on one flow of a devbox; ``body`` as for :meth:`explain_policy`."""
        return self._call("POST", f"/v1/devboxes/{quote(devbox_id, safe='')}/explain", body)

    def simulate_policy(self, policy_id: str, body: Mapping[str, object]) -> JsonObject:
        """What the update ``body`` would have changed in the last hours."""
        return self._call("POST", f"/v1/network-policies/{policy_id}/simulate", body)

    def suggest_policy(self, policy_id: str, body: Mapping[str, object]) -> JsonObject:
        """What the policy should allow, by what its devboxes did lately."""
        return self._call("POST", f"/v1/network-policies/{policy_id}/suggest", body)

    def create_devbox(self, body: Mapping[str, object]) -> JsonObject:
        """The view of a new devbox; it is not running yet."""
        return self._call("POST", "/v1/devboxes", body)

    def get_devbox(self, devbox_id: str) -> JsonObject:
        """The view of a devbox."""
        return self._call("GET", f"/v1/devboxes/{devbox_id}")

    def list_devboxes(self, **filters: str) -> Iterator[JsonObject]:
        """Every devbox of the account, newest first; ``filters`` such as ``status`` go to the server."""
        return self._pages("/v1/devboxes", "devboxes", filters)

    def shutdown_devbox(self, devbox_id: str) -> JsonObject:
        """The view of a devbox that is ending."""
        return self._call("POST", f"/v1/devboxes/{devbox_id}/shutdown", {})

    def suspend_devbox(self, devbox_id: str) -> JsonObject:
        """The view of a devbox that is being suspended."""
        return self._call("POST", f"/v1/devboxes/{devbox_id}/suspend", {})

    def resume_devbox(self, devbox_id: str) -> JsonObject:
        """The view of a devbox that is starting again."""
        return self._call("POST", f"/v1/devboxes/{devbox_id}/resume", {})

    def wait_for_devbox(self, devbox_id: str, *statuses: str) -> JsonObject | None:
        """The view once the status is one of ``statuses``, or None after half a minute without that."""
        return self._poll(f"/v1/devboxes/{devbox_id}/wait_for_status", statuses)

    def execute(self, devbox_id: str, command: str) -> JsonObject:
        """Run ``command`` to its end, however long it takes; its view holds the last lines of output."""
        body = {"command": command, "command_id": str(uuid.uuid4())}
        execution = self._call("POST", f"/v1/devboxes/{devbox_id}/execute", body)
        while execution["status"] != "completed":
            place = f"/v1/devboxes/{devbox_id}/executions/{execution['execution_id']}/wait_for_status"
            execution = self._poll(place, ("completed",)) or execution
        return execution

    def create_snapshot(self, devbox_id: str, body: Mapping[str, object]) -> JsonObject:
        """The view of a new snapshot; it is not complete yet."""
        return self._call("POST", f"/v1/devboxes/{quote(devbox_id, safe='')}/snapshot_disk_async", body)

    def list_snapshots(self, **filters: str) -> Iterator[JsonObject]:
        """Every snapshot of the account, newest first; ``filters`` such as ``devbox_id`` go to the server."""
        return self._pages("/v1/devboxes/disk_snapshots", "snapshots", filters)

    def get_snapshot_status(self, snapshot_id: str) -> JsonObject:
        """How far a snapshot is, with its view."""
        return self._call("GET", f"/v1/devboxes/disk_snapshots/{quote(snapshot_id, safe='')}/status")

    def delete_snapshot(self, snapshot_id: str) -> None:
        """Delete a snapshot."""
        self._call("POST", f"/v1/devboxes/disk_snapshots/{quote(snapshot_id, safe='')}/delete", {})

    def list_objects(self, **filters: str) -> Iterator[JsonObject]:
        """Every storage object of the account, newest first; ``filters`` such as ``name`` go to the server."""
        return self._pages("/v1/objects", "objects", filters)

    def get_object(self, object_id: str) -> JsonObject:
        """The view of a storage object."""
        return self._call("GET", f"/v1/objects/{quote(object_id, safe='')}")

    def delete_object(self, object_id: str) -> JsonObject:
        """The view of the deleted object."""
        return self._call("POST", f"/v1/objects/{quote(object_id, safe='')}/delete", {})

    def upload_object(self, body: Mapping[str, object], content: BinaryIO) -> JsonObject:
        """The view of a new object with these bytes; when they cannot be sent, there is no object."""
        view = self._call("POST", "/v1/objects", body)
        try:
            # Its own client: the URL may lead elsewhere, and the API key is for the API alone.
            checked(self._send_to(view["upload_url"], content))
            return self._call("POST", f"/v1/objects/{view['id']}/complete", {})
        except BaseException:
            with contextlib.suppress(PeerUnreachableError, PeerRefusedError):
                self.delete_object(view["id"])
            raise

    def download_object(self, object_id: str, path: Path) -> None:
        """Write the object's bytes to a file, whole or not at all. Raises OSError, too."""
        link = self._call("GET", f"/v1/objects/{quote(object_id, safe='')}/download")
        draft = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
        try:
            with (
                draft.open("wb") as file,
                httpx.stream("GET", link["download_url"], timeout=_TRANSFER_TIMEOUT, trust_env=False) as answer,
            ):
                if not answer.is_success:
                    answer.read()
                    checked(answer)
                for piece in answer.iter_raw():
                    file.write(piece)
            draft.replace(path)
        except httpx.HTTPError as error:
            raise PeerUnreachableError(f"the download broke off: {error}") from error
        finally:
            draft.unlink(missing_ok=True)

    def _send_to(self, url: str, content: BinaryIO) -> httpx.Response:
        try:
            return httpx.put(url, content=content, timeout=_TRANSFER_TIMEOUT, trust_env=False)
        except httpx.HTTPError as error:
            raise PeerUnreachableError(f"the upload broke off: {error}") from error

    def create_secret(self, name: str, value: str) -> JsonObject:
        """The view of a new secret."""
        return self._call("POST", "/v1/secrets", {"name": name, "value": value})

    def list_secrets(self) -> list[JsonObject]:
        """The secrets of the account, newest first: as many as the server lists at once."""
        secrets: list[JsonObject] = self._call("GET", "/v1/secrets", params={"limit": _SECRETS_LISTED})["secrets"]
        return secrets

    def update_secret(self, name: str, value: str) -> JsonObject:
        """The view of a secret with another value."""
        return self._call("POST", f"/v1/secrets/{quote(name, safe='')}", {"value": value})

    def delete_secret(self, name: str) -> JsonObject:
        """The view of the deleted secret."""
        return self._call("POST", f"/v1/secrets/{quote(name, safe='')}/delete", {})

    def create_webhook(self, body: Mapping[str, object]) -> JsonObject:
        """The view of a new webhook, with its secret."""
        return self._call("POST", "/v1/webhooks", body)

    def list_webhooks(self) -> Iterator[JsonObject]:
        """Every webhook of the account, newest first."""
        return self._pages("/v1/webhooks", "webhooks", {})

    def get_webhook(self, webhook_id: str) -> JsonObject:
        """The view of a webhook."""
        return self._call("GET", f"/v1/webhooks/{quote(webhook_id, safe='')}")

    def update_webhook(self, webhook_id: str, body: Mapping[str, object]) -> JsonObject:
        """The view after a partial update."""
        return self._call("POST", f"/v1/webhooks/{quote(webhook_id, safe='')}", body)

    def delete_webhook(self, webhook_id: str) -> JsonObject:
        """The view of the deleted webhook."""
        return self._call("POST", f"/v1/webhooks/{quote(webhook_id, safe='')}/delete", {})

    def try_webhook(self, webhook_id: str) -> JsonObject:
        """The view of a delivery that is about to be tried."""
        return self._call("POST", f"/v1/webhooks/{quote(webhook_id, safe='')}/test", {})

    def rotate_webhook_secret(self, webhook_id: str, overlap_s: int | None) -> JsonObject:
        """The view of a webhook with its new secret; the old one signs, too, for so long (a day when None)."""
        body = {} if overlap_s is None else {"overlap_seconds": overlap_s}
        return self._call("POST", f"/v1/webhooks/{quote(webhook_id, safe='')}/secret", body)

    def list_webhook_deliveries(self, webhook_id: str, *, limit: int) -> list[JsonObject]:
        """The webhook's latest deliveries, newest first."""
        place = f"/v1/webhooks/{quote(webhook_id, safe='')}/deliveries"
        deliveries: list[JsonObject] = self._call("GET", place, params={"limit": str(limit)})["deliveries"]
        return deliveries

    def create_blueprint(self, body: Mapping[str, object]) -> JsonObject:
        """The view of a new blueprint; it is not built yet."""
        return self._call("POST", "/v1/blueprints", body)

    def get_blueprint(self, blueprint_id: str) -> JsonObject:
        """The view of a blueprint."""
        return self._call("GET", f"/v1/blueprints/{blueprint_id}")

    def list_blueprints(self, **filters: str) -> Iterator[JsonObject]:
        """Every blueprint of the account, newest first; ``filters`` such as ``name`` go to the server."""
        return self._pages("/v1/blueprints", "blueprints", filters)

    def read_build_log(self, blueprint_id: str) -> list[JsonObject]:
        """What the build has said so far, oldest first."""
        lines: list[JsonObject] = self._call("GET", f"/v1/blueprints/{blueprint_id}/logs")["logs"]
        return lines

    def delete_blueprint(self, blueprint_id: str) -> None:
        """Delete a blueprint."""
        self._call("POST", f"/v1/blueprints/{blueprint_id}/delete", {})

    def list_flows(self, **filters: str) -> JsonObject:
        """One page of decisions, newest first; ``filters`` such as ``devbox_id`` or ``verdict`` go to the server."""
        return self._call("GET", "/v1/network-flows", params=filters)

    def follow_flows(self, after: int, *, on_open: Callable[[], None], **filters: str) -> Iterator[JsonObject]:
        """Decisions after number ``after``, oldest first, as they come, until the server ends the stream.

        ``on_open`` is called once the server has begun to answer. (flow_following goes on through such ends.)
        """
        return self._events("/v1/network-flows/stream", {**filters, "starting_after": str(after)}, on_open)

    def _events(self, path: str, params: Mapping[str, str], on_open: Callable[[], None]) -> Iterator[JsonObject]:
        """The data of the server's events, each of which is one line of JSON; ends when the server breaks off."""
        try:
            with self._client.stream("GET", path, params=params) as response:
                if not response.is_success:
                    response.read()
                    checked(response)
                on_open()
                is_error = False
                for line in response.iter_lines():
                    if line.startswith("event:"):
                        is_error = line.removeprefix("event:").strip() == "error"
                    elif line.startswith("data:") and not is_error:
                        document: JsonObject = json.loads(line.removeprefix("data:"))
                        yield document
        except httpx.HTTPError as error:
            raise PeerUnreachableError(f"{self._url} broke off: {error}") from error

    def get_readiness(self) -> JsonObject:
        """What the server says of itself: whether it enforces, and what is wrong if it does not."""
        response = self._send("GET", "/readyz", None, None)
        body: JsonObject = response.json()
        return body

    def _poll(self, path: str, statuses: tuple[str, ...]) -> JsonObject | None:
        try:
            return self._call("POST", path, {"statuses": list(statuses), "timeout_seconds": _LONG_POLL_S})
        except PeerRefusedError as error:
            if error.status == _REQUEST_TIMEOUT:
                return None
            raise

    def _pages(self, path: str, key: str, filters: Mapping[str, str]) -> Iterator[JsonObject]:
        params = {**filters, "limit": str(_PAGE_SIZE)}
        while True:
            page = self._call("GET", path, params=params)
            items: list[JsonObject] = page[key]
            yield from items
            if not page.get("has_more") or not items:
                return
            params["starting_after"] = items[-1]["id"]

    def _call(
        self,
        method: str,
        path: str,
        body: Mapping[str, object] | None = None,
        *,
        params: Mapping[str, str] | None = None,
    ) -> JsonObject:
        response = self._send(method, path, body, params)
        checked(response)
        document: JsonObject = response.json()
        return document

    def _send(
        self, method: str, path: str, body: Mapping[str, object] | None, params: Mapping[str, str] | None
    ) -> httpx.Response:
        try:
            return self._client.request(method, path, json=body, params=params)
        except httpx.HTTPError as error:
            raise PeerUnreachableError(f"{self._url} does not answer: {error}") from error
