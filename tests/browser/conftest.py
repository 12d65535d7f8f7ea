"""A server and a Chromium, with a recording as its microphone, for all tests that spare them."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Playwright, sync_playwright

from tests.browser.node import Cable, Node, running_node
from tests.browser.watch import Watch
from tests.servers import ROOT

RECORDING = Path("/usr/share/pocketsphinx/test/data/goforward.raw")
ARTIFACTS = ROOT / "artifacts"

QUIET_FLAGS = (
    "--headless=new",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
    "--disable-gpu",
    "--host-resolver-rules=MAP plain.test 127.0.0.1",
)


def launch(playwright: Playwright, *flags: str) -> Browser:
    """Start Chromium: the system's if there is one, else Playwright's own."""
    return playwright.chromium.launch(
        executable_path=shutil.which("chromium"),
        chromium_sandbox=False,
        args=[*QUIET_FLAGS, *flags],
    )


@pytest.fixture(scope="package")
def microphone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a recording of a human voice, with a pause that ends the sentence, at 48 kHz mono."""
    path = tmp_path_factory.mktemp("audio") / "microphone.wav"
    raw = ["-f", "s16le", "-ar", "16000", "-ac", "1", "-i", str(RECORDING)]
    wav = ["-af", "apad=pad_dur=1.5", "-ar", "48000", "-ac", "1", "-c:a", "pcm_s16le", str(path)]
    subprocess.run(["ffmpeg", "-loglevel", "error", *raw, *wav], check=True)
    return path


@pytest.fixture(scope="package")
def playwright() -> Iterator[Playwright]:
    """Run the driver of the browsers."""
    with sync_playwright() as running:
        yield running


@pytest.fixture(scope="package")
def browser(playwright: Playwright, microphone: Path) -> Iterator[Browser]:
    """Run a Chromium that grants its microphone, which plays the recording again and again."""
    running = launch(
        playwright,
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        "--autoplay-policy=no-user-gesture-required",
        f"--use-file-for-fake-audio-capture={microphone}",
    )
    yield running
    running.close()


@pytest.fixture
def mute_browser(playwright: Playwright) -> Iterator[Browser]:
    """Run a Chromium whose user refuses the microphone."""
    running = launch(playwright, "--use-fake-device-for-media-stream", "--deny-permission-prompts")
    yield running
    running.close()


@pytest.fixture
def one_recognizer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the server that starts next recognize one speaker at a time."""
    monkeypatch.setenv("ROOMCAST_ENGINES__EMBEDDED__MAX_STREAMS", "1")


@pytest.fixture(scope="package")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """Run a server for every test that has a room of its own."""
    with running_node(tmp_path_factory.mktemp("node") / "server.log") as running:
        yield running


@pytest.fixture
def own_node(tmp_path: Path) -> Iterator[Node]:
    """Run a server that this test may end."""
    with running_node(tmp_path / "server.log") as running:
        yield running


@pytest.fixture
def cable(node: Node) -> Iterator[Cable]:
    """Lay a cable to the server."""
    laid = Cable(node)
    yield laid
    laid.cut()


@pytest.fixture
def watch() -> Iterator[Watch]:
    """Watch pages, and fail the test for a complaint of the browser that it did not expect."""
    watching = Watch()
    yield watching
    assert not watching.complaints, "\n".join(watching.complaints)


@pytest.fixture
def page(browser: Browser, watch: Watch) -> Iterator[Page]:
    """Open one tab on a desktop."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    yield watch.over(context.new_page())
    context.close()


@pytest.fixture
def other_page(browser: Browser, watch: Watch) -> Iterator[Page]:
    """Open one tab on somebody else's phone."""
    context = browser.new_context(viewport={"width": 375, "height": 812}, has_touch=True)
    yield watch.over(context.new_page())
    context.close()
