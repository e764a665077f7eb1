"""A walk past every secret that the api ever handles, with its logs at their most talkative. Run as a program.

Everything of a kind that must stay secret is named in ``walk.json`` in the given directory, with what the api answered
to requests that it refused; logs go to standard error, the store and its neighbours into ``DIRECTORY/world``.
"""

import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx

from outgate.api import accounts
from outgate.logs import configure_logs
from outgate.model.flow import HostContext
from outgate.model.names import DomainName
from outgate.settings import LogFormat, LogLevel
from support.api_server import HOST_TOKEN
from support.local_terminals import LocalRuntime
from support.ssh_client import run_ssh
from support.terminal_world import TerminalWorld, open_terminal_world
from support.webhook_receiver import Reply, run_receiver

MARK = "Marker7vQx"
"""Whatever a caller chooses holds it and a word that says what it is."""


class Walk:
    """What was seen on the way. ``plain`` are secrets that the store is documented to hold as they are."""

    def __init__(self, world: TerminalWorld) -> None:
        self.world = world
        self.client = httpx.Client(base_url=world.server.base_url, timeout=40)
        self.client.headers["authorization"] = f"Bearer {world.api_key}"
        self.hidden: dict[str, str] = {"account key": world.api_key, "host token": HOST_TOKEN}
        self.plain: dict[str, str] = {}
        self.refusals: list[str] = []

    def chosen(self, what: str) -> str:
        """A secret of the caller's own choice."""
        self.hidden[what] = f"{MARK}-{what.replace(' ', '-')}"
        return self.hidden[what]

    def post(self, path: str, body: dict[str, Any] | None = None) -> Any:
        answer = self.client.post(path, json=body or {})
        assert answer.status_code == 200, (path, answer.text)
        return answer.json()

    def refused(self, method: str, path: str, **options: Any) -> None:
        """A request that fails; its answer must not repeat what it held."""
        answer = self.client.request(method, path, **options)
        assert answer.status_code >= 400, (path, answer.text)
        self.refusals.append(answer.text)

    def go(self) -> None:
        """All of it."""
        self.make_keys()
        self.use_secrets()
        self.transfer_objects()
        self.use_webhooks()
        devbox_id = self.use_devbox()
        self.use_terminals(devbox_id)
        self.show_wrong_ones(devbox_id)
        self.break_something()

    def make_keys(self) -> None:
        self.hidden["made key"] = self.post("/v1/apikeys", {"name": "k"})["key_secret"]
        scopes = [{"resource_type": "RESOURCE_TYPE_DEVBOXES", "access_level": "ACCESS_LEVEL_READ"}]
        made = self.post("/v1/restricted_keys", {"name": "r", "scopes": scopes})
        self.hidden["restricted key"] = made["key_secret"]
        restricted = {"authorization": f"Bearer {made['key_secret']}"}
        assert self.client.get("/v1/devboxes", headers=restricted).status_code == 200
        self.refused("POST", "/v1/devboxes", json={}, headers=restricted)

    def use_secrets(self) -> None:
        self.post("/v1/secrets", {"name": "ONE", "value": self.chosen("secret value")})
        self.post("/v1/secrets/ONE", {"value": self.chosen("second value")})
        self.refused("POST", "/v1/secrets", json={"name": "not a name", "value": self.chosen("refused value")})
        self.refused("POST", "/v1/secrets", json={"name": "TWO", "value": [self.chosen("value in a list")]})
        self.refused("POST", "/v1/secrets", content='{"name": "T", "value": "' + self.chosen("value in no JSON"))

    def use_webhooks(self) -> None:
        """One delivery that arrives, one that does not: a receiver's own token may be part of the URL."""
        with run_receiver() as receiver:
            self.plain["webhook path"] = f"{MARK}-webhook-path"
            url = f"http://127.0.0.1:{receiver.port}/{self.plain['webhook path']}"
            made = self.post("/v1/webhooks", {"url": url, "events": ["flow.denied"]})
            self.hidden["webhook secret"] = made["secret"]
            self.hidden["bytes of the webhook secret"] = made["secret"].removeprefix("whsec_")
            place = f"/v1/webhooks/{made['id']}"
            receiver.replies = [Reply(500)]
            for count in (1, 2):
                self.post(f"{place}/test")
                came = receiver.wait(count)[-1]
                assert came.path.endswith("webhook-path")
            self.hidden["second webhook secret"] = self.post(f"{place}/secret")["secret"]
            answers = [self.client.get(path).text for path in (place, "/v1/webhooks", f"{place}/deliveries")]
            self.refusals += [answer.replace(self.plain["webhook path"], "") for answer in answers]
            self.refused("POST", place, json={"enabled": "no"})

    def transfer_objects(self) -> None:
        made = self.post("/v1/objects", {"name": "o", "content_type": "text"})
        self.keep_signature("upload signature", made["upload_url"])
        assert httpx.put(made["upload_url"], content=b"bytes").status_code == 200
        self.post(f"/v1/objects/{made['id']}/complete")
        self.refused("PUT", made["upload_url"], content=b"again")
        found = self.client.get(f"/v1/objects/{made['id']}/download").json()["download_url"]
        self.keep_signature("download signature", found)
        assert httpx.get(found).text == "bytes"
        self.refused("PUT", found, content=b"wrong way")
        wrong = re.sub("signature=.*", f"signature={self.chosen('wrong signature')}", found)
        self.refused("GET", wrong)

    def keep_signature(self, what: str, url: str) -> None:
        self.hidden[what] = parse_qs(urlsplit(url).query)["signature"][0]

    def use_devbox(self) -> str:
        self.plain["environment"] = f"{MARK}-environment"
        mount = {"type": "code_mount", "repo_name": "r", "repo_owner": "o", "token": self.chosen("git token")}
        given = {
            "environment_variables": {"PLAIN": self.plain["environment"]},
            "secrets": {"GIVEN": "ONE"},
            "mounts": [mount],
        }
        devbox_id = self.world.devbox(**given)
        self.refused("POST", "/v1/devboxes", json=given | {"environment_variables": {"A=B": self.chosen("bad value")}})
        # There is no agent for commands and files in this world: what they hold meets an error on its way.
        self.refused("POST", f"/v1/devboxes/{devbox_id}/execute_async", json={"command": self.chosen("command")})
        contents = {"file_path": "f", "contents": self.chosen("contents")}
        self.refused("POST", f"/v1/devboxes/{devbox_id}/write_file_contents", json=contents)
        made = self.post(f"/v1/devboxes/{devbox_id}/enable_tunnel", {"auth_mode": "authenticated"})
        self.plain["tunnel token"] = made["auth_token"]
        return devbox_id

    def use_terminals(self, devbox_id: str) -> None:
        key = self.world.ssh_key(devbox_id)
        text = key.file.read_text()
        # The first line of the inside is the same in all keys of the kind.
        for number, line in enumerate(text.splitlines()[2:-1]):
            self.hidden[f"line {number} of the SSH key"] = line
        key.file.unlink()
        key.file.touch(0o600)
        key.file.write_text(text)
        done = run_ssh(key, f"cat; echo {self.chosen('SSH command')}", stdin=self.chosen("SSH input").encode())
        assert self.hidden["SSH command"].encode() in done.stdout
        key.file.unlink()
        headers = self.world.pty_tunnel(devbox_id)
        self.hidden["PTY token"] = headers["x-runloop-tunnel-authorization"].removeprefix("Bearer ")
        assert httpx.get(f"{self.world.pty_url}/pty/main", headers=headers).status_code == 200
        headers["x-runloop-tunnel-authorization"] = f"Bearer {self.chosen('wrong PTY token')}"
        refused = httpx.get(f"{self.world.pty_url}/pty/main", headers=headers)
        assert refused.status_code == 401
        self.refusals.append(refused.text)

    def show_wrong_ones(self, devbox_id: str) -> None:
        for number in range(self.world.server.services.settings.auth_failures_max + 2):
            shown = {"authorization": f"Bearer {self.chosen(f'wrong key {number}')}"}
            self.refused("GET", f"/v1/devboxes/{devbox_id}", headers=shown)
        self.refused("GET", "/v1/devboxes", headers={"authorization": f"Basic {self.chosen('basic')}"})
        self.refused("GET", "/v1/devboxes", params={"limit": self.chosen("wrong limit")})
        del self.hidden["wrong limit"]  # no secret, and the answer says what was wrong with it

    def break_something(self) -> None:
        """A defect: its traceback goes to the log, and what the functions in it held must not."""

        async def fail(*held: object) -> None:
            secret = self.hidden["made key"]  # a local variable of a function that the traceback names
            raise RuntimeError(f"a defect beside {len(secret)} characters and {len(held)} arguments")

        vars(accounts)["get_account"] = fail
        self.refused("GET", "/v1/accounts/me")


@contextmanager
def open_world(directory: Path) -> Iterator[TerminalWorld]:
    home = directory / "home"
    home.mkdir(parents=True)
    runtime = LocalRuntime(home)
    with open_terminal_world(directory, runtime) as world:
        settings = world.server.services.settings
        object.__setattr__(settings, "context", HostContext(tunnel_domain=DomainName("tunnel.outgate.test")))
        yield world
    runtime.close()


def main() -> None:
    directory, form = Path(sys.argv[1]), LogFormat(sys.argv[2])
    configure_logs(LogLevel.DEBUG, form, process="api")
    with open_world(directory / "world") as world:
        walk = Walk(world)
        walk.go()
    found = {"hidden": walk.hidden, "plain": walk.plain, "refusals": walk.refusals}
    (directory / "walk.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
