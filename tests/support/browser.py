"""Debian's Chromium, without a window."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

T = TypeVar("T")
CHROMIUM, DRIVER = "/usr/bin/chromium", "/usr/bin/chromedriver"
WAIT_S = 40.0
"""For what takes a moment; a busy machine takes many."""


def is_installed() -> bool:
    return all(shutil.which(program) is not None for program in (CHROMIUM, DRIVER))


class Browser:
    """One window."""

    def __init__(self, driver: webdriver.Chrome, base_url: str) -> None:
        self.driver, self.base_url = driver, base_url

    def go(self, path: str) -> None:
        self.driver.get(self.base_url + path)

    def find(self, selector: str) -> WebElement:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def find_all(self, selector: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def text(self, selector: str = "main") -> str:
        """What can be read there, in single spaces."""
        shown: str = self.driver.execute_script(
            "return [...document.querySelectorAll(arguments[0])].map(e => e.innerText).join(' ')", selector
        )
        return " ".join(shown.split())

    def wait(self, what: Callable[[], T]) -> T:
        """What ``what`` returns as soon as that is something."""
        return WebDriverWait(self.driver, WAIT_S, poll_frequency=0.1).until(lambda _: what())

    def wait_for(self, text: str, selector: str = "main") -> None:
        self.wait(lambda: text in self.text(selector))

    def wait_at(self, path: str) -> None:
        """Until a page of that path is there, as a whole."""
        self.wait(
            lambda: self.driver.execute_script(
                "return document.readyState === 'complete' && location.pathname === arguments[0]", path
            )
        )

    def resize(self, width: int, height: int) -> None:
        """The page's own size: windows are not narrower than 500."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def prefer(self, scheme: str) -> None:
        """Light or dark."""
        feature = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", feature)

    def complaints(self) -> list[str]:
        """What the browser complained of since the last call: errors of scripts, refusals by policy, failed requests."""
        driver: Any = self.driver  # selenium types nothing of this
        return [entry["message"] for entry in driver.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]


@contextmanager
def open_browser(profile: Path, base_url: str, *, with_scripts: bool = True) -> Iterator[Browser]:
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    # A sandbox of its own does not work for root; what is shown here is ours.
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--no-first-run"):
        options.add_argument(argument)
    options.add_argument(f"--user-data-dir={profile}")
    options.add_argument("--window-size=1280,900")
    if not with_scripts:
        setting = {"profile.managed_default_content_settings.javascript": 2}
        options.add_experimental_option("prefs", setting)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    try:
        driver.set_page_load_timeout(WAIT_S)
        driver.set_script_timeout(WAIT_S)
        yield Browser(driver, base_url)
    finally:
        driver.quit()
