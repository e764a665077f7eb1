from collections.abc import Mapping
from pathlib import Path

import httpx
import pytest

from outgate.cli import main, server_options
from outgate.client.public import OutgateClient
from support.cli_rig import FakeApi, Run


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the whole program: exit code, standard output, standard error, and what the API saw."""

    def run_command(arguments: list[str], answers: Mapping[str, object]) -> tuple[int, str, str, FakeApi]:
        api = FakeApi(answers)

        def connect(_url: str | None, _key: str | None, _state_dir: Path | None) -> OutgateClient:
            return OutgateClient("http://server", "key", transport=httpx.MockTransport(api))

        monkeypatch.setattr(server_options, "connect", connect)
        monkeypatch.setattr("sys.argv", ["outgate", *arguments])
        with pytest.raises(SystemExit) as end:
            main.main()
        printed = capsys.readouterr()
        code = end.value.code
        return code if isinstance(code, int) else 0, printed.out, printed.err, api

    return run_command
