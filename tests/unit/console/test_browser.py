"""The console in a real browser: with scripts and without, by keyboard, on a phone, light and dark."""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from selenium.webdriver.common.keys import Keys

from outgate.control.accounts import NewKey
from support.api_server import ApiServer
from support.browser import Browser, is_installed, open_browser
from support.console import POLICIES, SIGN_IN, Teller, make_devbox, make_policy

pytestmark = [
    pytest.mark.skipif(not is_installed(), reason="needs Debian's chromium and chromium-driver"),
    pytest.mark.timeout(240),
]

DENIED = {"verdict": "deny", "reason": "no_rule", "point": "dns", "protocol": ""}


@pytest.fixture(scope="module")
def window(server: ApiServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One browser for all tests of this file; each begins signed out."""
    with open_browser(tmp_path_factory.mktemp("browser"), server.base_url) as opened:
        yield opened


@pytest.fixture
def browser(window: Browser) -> Iterator[Browser]:
    window.driver.delete_all_cookies()
    window.resize(1280, 900)
    window.prefer("light")
    window.complaints()
    yield window
    assert window.complaints() == [], "the browser found nothing to complain of"


@pytest.fixture
def seen(policy_id: str, devbox_id: str, teller: Teller) -> None:
    web = {"address": "1.2.3.4", "port": 443}
    teller.tell(
        devbox_id,
        policy_id,
        {"name": "lost.example", "count": 3, **web},
        {"name": "wanted.example", "count": 2, **DENIED},
    )


def sign_in(browser: Browser, key: NewKey) -> None:
    browser.go(SIGN_IN)
    browser.find("#api_key").send_keys(key.api_key)
    browser.find("form button").click()
    browser.wait_at(POLICIES)


def hostnames(client: httpx.Client, policy_id: str) -> list[str]:
    found: list[str] = client.get(f"/v1/network-policies/{policy_id}").json()["egress"]["allowed_hostnames"]
    return found


@pytest.mark.usefixtures("seen")
def test_a_policy_is_edited_with_a_word_on_each_change_before_it_is_saved(
    browser: Browser, key: NewKey, client: httpx.Client, policy_id: str
) -> None:
    sign_in(browser, key)
    browser.go(f"{POLICIES}/{policy_id}/edit")
    browser.wait_for("Nothing that was tried would turn out otherwise.", "#preview")
    names = browser.find("#allowed_hostnames")
    names.clear()
    names.send_keys("wanted.example\nhttps://x.example/a")
    browser.wait_for("Line 2: 'https://x.example/a' is a URL; write only its host name", "#problems-allowed_hostnames")
    assert names.get_attribute("aria-invalid") == "true"
    assert browser.find_all("#save") == []
    assert browser.driver.switch_to.active_element == names, "the focus stays where somebody types"
    names.send_keys(Keys.BACKSPACE * len("https://x.example/a"))
    browser.wait_for("Would be denied from now on 1 lost.example", "#preview")
    assert "Would be allowed from now on 1 wanted.example" in browser.text("#preview")
    assert browser.text("#problems-allowed_hostnames") == ""
    assert names.get_attribute("aria-invalid") is None
    assert hostnames(client, policy_id) == ["kept.example", "lost.example"]
    browser.wait(lambda: browser.find("#preview").get_attribute("aria-busy") is None)
    browser.find("#save").click()
    browser.wait_at(f"{POLICIES}/{policy_id}")
    assert "Saved. In force on 1 of 1" in browser.text()
    assert hostnames(client, policy_id) == ["wanted.example"]


def test_flows_appear_as_they_are_decided_and_wait_while_paused(
    browser: Browser, key: NewKey, policy_id: str, devbox_id: str, teller: Teller
) -> None:
    sign_in(browser, key)
    browser.go("/console/flows")
    browser.wait_for("Live", "#live-state")
    assert "Nothing was decided yet" in browser.text()
    teller.tell(devbox_id, policy_id, {**DENIED, "name": "first.example", "sentence": "Because <i>."})
    browser.wait_for("first.example", "#flows tbody")
    assert "Because <i>." in browser.text("#flows tbody")
    assert "Nothing was decided yet" not in browser.text()
    browser.find("#pause").click()
    teller.tell(devbox_id, policy_id, {"name": "second.example"})
    browser.wait_for("Go on (1 new)", "#pause")
    assert "second.example" not in browser.text("#flows")
    browser.find("#pause").click()
    browser.wait_for("second.example", "#flows tbody")
    first, _ = browser.find_all("#flows tbody tr")
    assert "second.example" in first.text, "the newest first"
    assert browser.driver.execute_script("return performance.getEntriesByType('navigation')[0].type") == "navigate"


def tab_to(browser: Browser, selector: str) -> None:
    """Press the tabulator until that is where the keyboard is."""
    for _ in range(60):
        active = browser.driver.switch_to.active_element
        if active == browser.find(selector):
            outline = active.value_of_css_property("outline-style")
            assert outline != "none", f"{selector} shows that it has the focus"
            return
        active.send_keys(Keys.TAB)
    raise AssertionError(f"the keyboard does not get to {selector}")


@pytest.mark.usefixtures("seen")
def test_the_keyboard_is_enough(browser: Browser, key: NewKey, client: httpx.Client, policy_id: str) -> None:
    browser.go("/console")
    active = browser.driver.switch_to.active_element
    assert active.get_attribute("id") == "api_key"
    active.send_keys(key.api_key, Keys.ENTER)
    browser.wait_at(POLICIES)
    browser.driver.switch_to.active_element.send_keys(Keys.TAB)
    skip = browser.driver.switch_to.active_element
    assert (skip.text, skip.rect["y"] >= 0) == ("Skip to content", True), "the first stop leads past the bar"
    skip.send_keys(Keys.ENTER)
    assert browser.wait(lambda: browser.driver.switch_to.active_element.get_attribute("id") == "main")
    tab_to(browser, ".cards h2 a")
    browser.driver.switch_to.active_element.send_keys(Keys.ENTER)
    browser.wait_at(f"{POLICIES}/{policy_id}")
    tab_to(browser, f".tabs a[href='{POLICIES}/{policy_id}/edit']")
    browser.driver.switch_to.active_element.send_keys(Keys.ENTER)
    browser.wait_at(f"{POLICIES}/{policy_id}/edit")
    browser.wait_for("Nothing that was tried would turn out otherwise.", "#preview")
    tab_to(browser, "#allowed_hostnames")
    browser.driver.switch_to.active_element.send_keys(Keys.CONTROL + "a" + Keys.NULL + "keys.example")
    browser.wait_for("TCP to a host by name: keys.example.", "#preview")
    browser.wait(lambda: browser.find("#preview").get_attribute("aria-busy") is None)
    tab_to(browser, "#save")
    browser.driver.switch_to.active_element.send_keys(Keys.ENTER)
    browser.wait_at(f"{POLICIES}/{policy_id}")
    assert hostnames(client, policy_id) == ["keys.example"]


def test_no_page_is_wider_than_a_phone_and_each_has_a_dark_side(
    browser: Browser, key: NewKey, client: httpx.Client, teller: Teller, tmp_path: Path
) -> None:
    long = f"{'very-long-label-' * 3}x.{'another-long-label-' * 3}y.example.com"
    policy = make_policy(client, name="n" * 256, description="d" * 500, allowed_hostnames=[long, f"*.{long}"])
    devbox = make_devbox(client, policy, name="b" * 256)
    teller.tell(
        devbox, policy, {**DENIED, "name": long, "sentence": f"{long} is not covered: {'x' * 300}", "rule": long}
    )
    client.post(f"/v1/network-policies/{policy}", json={"allowed_hostnames": [long]})
    sign_in(browser, key)
    own = f"{POLICIES}/{policy}"
    pages = [
        POLICIES, f"{POLICIES}/new", own, f"{own}/edit", f"{own}/delete", f"{own}/suggestions", f"{own}/revisions",
        f"{own}/revisions/1", "/console/devboxes", f"/console/devboxes/{devbox}", "/console/flows", "/console/picture",
        "/console/health",
    ]  # fmt: skip
    for path in pages:
        browser.resize(360, 740)
        browser.go(path)
        wide = browser.driver.execute_script("return [document.documentElement.scrollWidth, window.innerWidth]")
        assert wide == [360, 360], f"{path} scrolls sideways"
        grounds = []
        for scheme in ("light", "dark"):
            browser.prefer(scheme)
            ink, ground = browser.driver.execute_script(
                "const s = getComputedStyle(document.body); return [s.color, s.backgroundColor]"
            )
            assert contrast(ink, ground) >= 7, (path, scheme)
            assert find_pale(browser) == [], (path, scheme)
            grounds.append(ground)
        assert grounds[0] != grounds[1], f"{path} is the same by day and by night"
        size = struct.unpack(">II", browser.driver.get_screenshot_as_png()[16:24])
        assert size == (360, 740)


_PALE = """
const parse = text => text.match(/[\\d.]+/g).map(Number);
const light = ([r, g, b]) => [r, g, b].map(v => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
  .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
const over = (top, below) => { const a = top[3] ?? 1; return [0, 1, 2].map(i => top[i] * a + below[i] * (1 - a)); };
function ground(element) {
  const layers = [];
  for (let e = element; e; e = e.parentElement) {
    const colour = parse(getComputedStyle(e).backgroundColor);
    layers.push(colour);
    if ((colour[3] ?? 1) === 1) break;
  }
  return layers.reverse().reduce((below, top) => over(top, below), [255, 255, 255]);
}
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
const pale = new Set();
while (walker.nextNode()) {
  const element = walker.currentNode.parentElement;
  if (!walker.currentNode.data.trim() || !element.checkVisibility() || element.closest('.visually-hidden, .skip, svg, [hidden], option')) continue;
  const [a, b] = [light(parse(getComputedStyle(element).color)), light(ground(element))].sort((x, y) => y - x);
  if ((a + 0.05) / (b + 0.05) < 4.5) pale.add(`${element.className || element.tagName}: ${walker.currentNode.data.trim().slice(0, 30)}`);
}
return [...pale];
"""


def find_pale(browser: Browser) -> list[str]:
    """Texts with less contrast than WCAG 2.2 asks for at level AA (1.4.3: 4.5 to 1)."""
    found: list[str] = browser.driver.execute_script(_PALE)
    return found


def contrast(one: str, other: str) -> float:
    """Of two colours as browsers write them (WCAG 2.2, relative luminance)."""
    bright, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


def _luminance(colour: str) -> float:
    parts = [int(part) / 255 for part in colour.partition("(")[2].rstrip(")").split(",")[:3]]
    linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.fixture
def bare(server: ApiServer, tmp_path: Path) -> Iterator[Browser]:
    """A browser in which no script runs."""
    with open_browser(tmp_path / "profile", server.base_url, with_scripts=False) as opened:
        yield opened


@pytest.mark.usefixtures("seen")
def test_everything_works_without_scripts(
    bare: Browser, client: httpx.Client, key: NewKey, policy_id: str, teller: Teller
) -> None:
    (devbox,) = client.get("/v1/devboxes").json()["devboxes"]
    source = WithoutScripts(bare)
    bare.go("/console/flows")
    source.fill("api_key", key.api_key)
    source.press("Sign in")
    assert "lost.example" in source.text()
    assert not bare.find("#pause").is_displayed()
    teller.tell(devbox["id"], policy_id, {"name": "later.example"})
    source.follow("Refresh")
    assert "later.example" in source.text()
    bare.go(f"{POLICIES}/{policy_id}/edit")
    assert bare.find_all("#save") == []
    source.fill("allowed_hostnames", "*\nwanted.example")
    source.press("Check and preview")
    assert "'*' would cover every name" in source.text()
    source.fill("allowed_hostnames", "wanted.example")
    source.press("Check and preview")
    assert "Would be denied from now on" in source.text()
    source.press("Save")
    assert "Saved. In force on 1 of 1" in source.text()
    assert hostnames(client, policy_id) == ["wanted.example"]
    source.follow("History")
    source.follow("Revision 1")
    source.press("Restore revision 1")
    assert hostnames(client, policy_id) == ["kept.example", "lost.example"]
    source.press("Sign out")
    assert "The key is looked at once and not kept." in source.text()
    # A form with mistakes in it comes back as 400, which browsers note.
    assert ["status of 400" in complaint for complaint in bare.complaints()] == [True]


class WithoutScripts:
    """A page read and used as by somebody: scripts are off for it, the driver's own are not."""

    def __init__(self, browser: Browser) -> None:
        self._browser = browser

    def text(self) -> str:
        return " ".join(self._browser.find("main").text.split())

    def fill(self, name: str, text: str) -> None:
        field = self._browser.find(f"[name='{name}']")
        field.clear()
        field.send_keys(text)

    def press(self, label: str) -> None:
        self._leave(next(button for button in self._browser.find_all("button") if button.text == label))

    def follow(self, label: str) -> None:
        self._leave(next(link for link in self._browser.find_all("a") if link.text == label))

    def _leave(self, control: Any) -> None:
        """Click, and wait until the page that this leads to is there."""
        before = self._browser.find("html")
        control.click()
        self._browser.wait(lambda: self._browser.find("html") != before)
        self._browser.wait(lambda: self._browser.driver.execute_script("return document.readyState") == "complete")
