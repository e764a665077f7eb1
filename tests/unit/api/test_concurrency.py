"""Two writers on one policy: nothing is lost inside a field, revisions are in order."""

from concurrent.futures import ThreadPoolExecutor

import httpx

POLICIES = "/v1/network-policies"
FIELDS = ("allow_devbox_to_devbox", "allow_agent_gateway", "allow_mcp_gateway", "allow_runloop_mirrors")


def test_writers_of_different_fields_do_not_undo_each_other(client: httpx.Client, policy_id: str) -> None:
    path = f"{POLICIES}/{policy_id}"
    rounds = 10

    def write(field: str) -> None:
        for n in range(rounds):
            answer = client.post(path, json={field: n % 2 == 0})
            assert answer.status_code == 200
            # Nobody else writes this field: what was just answered is what it holds.
            assert answer.json()["egress"][field] is (n % 2 == 0)
            assert client.get(path).json()["egress"][field] is (n % 2 == 0)
        client.post(path, json={field: True})

    with ThreadPoolExecutor(len(FIELDS)) as threads:
        list(threads.map(write, FIELDS))
    egress = client.get(path).json()["egress"]
    assert [egress[field] for field in FIELDS] == [True] * len(FIELDS)
    revisions = client.get(path + "/revisions", params={"limit": 1000}).json()["revisions"]
    assert [r["revision"] for r in revisions] == list(range(len(revisions), 0, -1))
    assert len(revisions) == 1 + len(FIELDS) * (rounds + 1)
    times = [r["time_ms"] for r in revisions]
    assert times == sorted(times, reverse=True)


def test_writers_of_one_field_leave_what_one_of_them_wrote(client: httpx.Client, policy_id: str) -> None:
    path = f"{POLICIES}/{policy_id}"
    lists = [[f"{writer}-{n}.example" for n in range(50)] for writer in range(8)]

    def write(hostnames: list[str]) -> None:
        answer = client.post(path, json={"allowed_hostnames": hostnames})
        assert answer.json()["egress"]["allowed_hostnames"] == hostnames

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(write, lists))
    assert client.get(path).json()["egress"]["allowed_hostnames"] in lists
    stored = client.get(path + "/revisions", params={"limit": 100}).json()["revisions"]
    assert sorted(r["egress"]["allowed_hostnames"] for r in stored) == sorted([*lists, []])


def test_of_many_creators_of_one_name_one_wins(client: httpx.Client) -> None:
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: client.post(POLICIES, json={"name": "same"}), range(8)))
    assert sorted(answer.status_code for answer in answers) == [200] + [409] * 7
