"""docs/errors.md and the source name the same error codes, with the same statuses."""

import re
from pathlib import Path

from support.error_codes import find_codes

DOCS = Path(__file__).parents[3] / "docs" / "errors.md"
_ROW = re.compile(r"^\| `(\w+)` \| ([\d, ]+) \| \S.* \| \S.* \|$", re.MULTILINE)


def test_every_error_code_is_documented_with_its_status_and_no_other() -> None:
    rows = _ROW.findall(DOCS.read_text("utf-8"))
    assert len(rows) == len({code for code, _ in rows})
    documented = {code: {int(status) for status in statuses.split(",")} for code, statuses in rows}
    assert documented == find_codes()
