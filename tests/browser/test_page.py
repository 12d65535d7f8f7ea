"""The page: speak, read, share, come back, and say what is wrong.

Waits are on what the page says of itself (attributes and text), never on time.
"""

from __future__ import annotations

import re
import urllib.error
import urllib.request
from collections.abc import Callable
from email.message import Message as Headers
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, ViewportSize, expect

from tests.browser.conftest import ARTIFACTS
from tests.browser.node import Cable, Node
from tests.browser.watch import Watch
from tests.doubles import RevAiDouble

pytestmark = pytest.mark.browser

HEARD_WITHIN = 30_000
BACK_WITHIN = 30_000
FINAL = "#captions .caption[data-final]"
WIDTHS = {
    "phone": ViewportSize(width=375, height=812),
    "desktop": ViewportSize(width=1280, height=800),
}


def open_room(page: Page, url: str, room: str) -> None:
    """Open a room and wait until the page is in it."""
    page.goto(f"{url}?room={room}")
    expect_live(page)


def expect_live(page: Page) -> None:
    """Wait until the page is in its room, for the first time or again."""
    expect(page.locator("body")).to_have_attribute("data-link", "live", timeout=BACK_WITHIN)


def speak(page: Page, name: str) -> None:
    """Press Speak with the keyboard."""
    page.locator("#name").fill(name)
    page.locator("#speak").press("Enter")
    expect(page.locator("body")).to_have_attribute("data-speech", "speaking")


def expect_finals(page: Page, count: int) -> list[str]:
    """Wait for that many finals and return their texts."""
    expect(page.locator(FINAL).nth(count - 1)).to_be_visible(timeout=HEARD_WITHIN)
    return page.locator(f"{FINAL} .text").all_inner_texts()[:count]


def expect_resumed(page: Page, kind: str) -> None:
    """Wait until the page has come back and says how it resumed."""
    expect_live(page)
    expect(page.locator("#resume")).to_have_attribute("data-kind", kind)
    expect(page.locator("#resume")).to_be_visible()


def get(url: str, headers: dict[str, str] | None = None) -> tuple[int, Headers]:
    """Return the status and the headers of a GET."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers or {})) as response:
            return response.status, response.headers
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers


def test_what_one_page_speaks_another_reads_by_the_share_link(
    node: Node, page: Page, other_page: Page
) -> None:
    open_room(page, node.url, "reading-along")
    link = page.locator("#share-link").get_attribute("href")
    assert link is not None
    other_page.goto(link)
    expect_live(other_page)
    expect(other_page.locator("#speak")).to_be_hidden()

    speak(page, "Ada")
    spoken = expect_finals(page, 2)
    read = expect_finals(other_page, 2)

    assert all(spoken)
    assert read == spoken
    expect(other_page.locator(FINAL).first.locator(".who")).to_have_text("Ada")
    expect(page.locator("#dropped")).to_have_attribute("data-frames", "0")
    page.screenshot(path=ARTIFACTS / "speaker.png")
    other_page.screenshot(path=ARTIFACTS / "reader.png")

    page.locator("#speak").press("Space")
    expect(page.locator("body")).to_have_attribute("data-speech", "idle", timeout=HEARD_WITHIN)


@pytest.mark.parametrize("end", [Node.kill, Node.stop], ids=["killed", "stopped"])
def test_both_pages_come_back_after_a_server_that_was(
    own_node: Node, page: Page, other_page: Page, watch: Watch, end: Callable[[Node], None]
) -> None:
    open_room(page, own_node.url, "phoenix")
    open_room(other_page, own_node.url, "phoenix")
    speak(page, "Ada")
    expect_finals(other_page, 1)

    watch.outage = True
    end(own_node)
    for each in (page, other_page):
        expect(each.locator("body")).to_have_attribute("data-link", "reconnecting")

    expect(page.locator("body")).to_have_attribute("data-speech", "waiting")
    own_node.start()
    for each in (page, other_page):
        expect_resumed(each, "gap")

    watch.outage = False
    for each in (page, other_page):
        expect(each.locator(f"#captions .note ~ {FINAL.split()[1]}").first).to_be_visible(
            timeout=HEARD_WITHIN
        )

    page.screenshot(path=ARTIFACTS / "speaker-back.png")
    other_page.screenshot(path=ARTIFACTS / "reader-back.png")


def test_a_cut_connection_is_resumed_with_what_was_missed(
    node: Node, cable: Cable, page: Page, watch: Watch
) -> None:
    open_room(page, cable.url, "resumed")
    node.publish("resumed", "before")
    expect(page.locator("#captions .text")).to_have_text(["before"])

    watch.outage = True
    cable.cut()
    expect(page.locator("body")).to_have_attribute("data-link", "reconnecting")
    node.publish("resumed", "meanwhile", "and then")
    cable.mend()

    expect_resumed(page, "recovered")
    watch.outage = False
    node.publish("resumed", "after")
    expect(page.locator("#captions .text")).to_have_text(
        ["before", "meanwhile", "and then", "after"]
    )
    expect(page.locator("#resume")).to_have_text("Recovered, 2 caught up")


def test_a_speaker_that_was_cut_off_goes_on_in_the_same_session_and_loses_nothing(
    node: Node, cable: Cable, page: Page, other_page: Page, watch: Watch
) -> None:
    open_room(page, cable.url, "cut-off")
    open_room(other_page, node.url, "cut-off")
    speak(page, "Ada")
    before = len(expect_finals(other_page, 1))

    watch.outage = True
    cable.cut()
    expect(page.locator("body")).to_have_attribute("data-speech", "waiting")
    cable.mend()
    expect(page.locator("body")).to_have_attribute("data-speech", "speaking", timeout=BACK_WITHIN)
    watch.outage = False
    texts = expect_finals(other_page, before + 3)
    assert set(texts) == {"go forward ten meters"}, "also of the sentence that was cut in two"
    expect(page.locator("#dropped")).to_have_attribute("data-frames", "0")
    sessions = {segment.partition(".")[0] for segment in node.segments("cut-off")}
    assert len(sessions) == 1


def test_a_speaker_is_told_that_the_engine_is_lost_and_why_the_session_ended(
    page: Page, watch: Watch, tmp_path: Path
) -> None:
    with RevAiDouble() as double:
        node = Node(
            tmp_path / "log",
            engines__enabled="revai",
            engines__revai__url=double.url,
            engines__revai__token=double.secret,
            limits__upstream__lost_within=3,
        )
        node.start()
        open_room(page, node.url, "lost-engine")
        speak(page, "Ada")
        expect(page.locator("#engine")).to_have_text("revai")

    expect(page.locator("#hint")).to_contain_text("lost")
    page.screenshot(path=ARTIFACTS / "engine-lost.png")
    watch.outage = True
    expect(page.locator("#notice-title")).to_have_text(
        "The speech engine was lost", timeout=HEARD_WITHIN
    )
    page.screenshot(path=ARTIFACTS / "engine-gone.png")
    page.locator("#speak").press("Enter")
    node.kill()


def test_a_late_reader_gets_the_recent_history(node: Node, page: Page) -> None:
    node.publish("history", *(f"line {number}" for number in range(60)))

    open_room(page, node.url, "history")

    expect(page.locator("#captions .text")).to_have_text([f"line {n}" for n in range(10, 60)])


def test_received_text_is_never_markup(node: Node, page: Page) -> None:
    open_room(page, node.url, "markup")

    node.publish("markup", "<img src=x onerror=alert(1)><b>bold</b>")

    expect(page.locator("#captions .text")).to_have_text("<img src=x onerror=alert(1)><b>bold</b>")
    expect(page.locator("#captions img, #captions b, #log img")).to_have_count(0)


def test_the_page_keeps_a_bounded_number_of_lines(node: Node, page: Page) -> None:
    open_room(page, node.url, "flood")

    node.publish("flood", *(f"line {number}" for number in range(520)))

    expect(page.locator("#captions .text").last).to_have_text("line 519")
    expect(page.locator("#captions > *")).to_have_count(500)
    expect(page.locator("#log > *")).to_have_count(200)


def test_a_reader_who_scrolled_up_is_left_alone_until_asking_for_the_latest(
    node: Node, page: Page
) -> None:
    open_room(page, node.url, "scrolling")
    node.publish("scrolling", *(f"line {number}" for number in range(40)))
    expect(page.locator("#captions .text").last).to_be_in_viewport()
    expect(page.locator("#latest")).to_be_hidden()

    page.locator("#stage").press("Home")
    expect(page.locator("#captions .text").first).to_be_in_viewport()
    node.publish("scrolling", "late")
    expect(page.locator("#latest")).to_have_text("1 more below")
    expect(page.locator("#captions .text").first).to_be_in_viewport()

    page.locator("#latest").click()
    expect(page.locator("#captions .text").last).to_be_in_viewport()
    expect(page.locator("#latest")).to_be_hidden()


def test_a_page_without_a_room_makes_one_up_and_keeps_it(node: Node, page: Page) -> None:
    page.goto(node.url)
    expect_live(page)

    room = page.locator("#room").inner_text()

    assert re.fullmatch(r"[a-z]+-[a-z]+-\d{3}", room)
    assert page.url == f"{node.url}?room={room}"
    page.reload()
    expect(page.locator("#room")).to_have_text(room)


def test_a_refused_microphone_says_what_to_do(
    node: Node, mute_browser: Browser, watch: Watch
) -> None:
    page = watch.over(mute_browser.new_page())
    open_room(page, node.url, "refused")

    page.locator("#speak").click()

    expect(page.locator("#notice")).to_contain_text("The microphone is blocked")
    expect(page.locator("#notice")).to_contain_text("site settings")
    expect(page.locator("body")).to_have_attribute("data-speech", "idle")


@pytest.mark.usefixtures("one_recognizer")
def test_a_busy_engine_is_told_and_can_be_tried_again(
    own_node: Node, page: Page, other_page: Page
) -> None:
    open_room(page, own_node.url, "busy")
    open_room(other_page, own_node.url, "busy")
    speak(page, "Ada")
    expect(page.locator("#engine")).to_have_text("embedded")

    other_page.locator("#speak").tap()
    expect(other_page.locator("#notice-title")).to_have_text("The speech engine is busy")
    expect(other_page.locator("#notice-code")).to_contain_text("engine_busy")
    expect(other_page.locator("body")).to_have_attribute("data-speech", "idle")

    page.locator("#speak").press("Enter")
    expect(page.locator("body")).to_have_attribute("data-speech", "idle", timeout=HEARD_WITHIN)
    speak(other_page, "Grace")
    expect(other_page.locator("#engine")).to_have_text("embedded")
    expect(other_page.locator("#notice")).to_be_hidden()


def test_a_page_without_tls_says_that_the_microphone_needs_it(node: Node, page: Page) -> None:
    page.goto(f"http://plain.test:{node.port}/?room=insecure")

    page.locator("#speak").click()

    expect(page.locator("#notice")).to_contain_text("localhost or over TLS")
    expect(page.locator("body")).to_have_attribute("data-speech", "idle")


@pytest.mark.parametrize("path", ["", "static/app.js"])
def test_the_page_and_its_files_are_guarded_and_revalidated(node: Node, path: str) -> None:
    status, headers = get(node.url + path)

    assert status == 200
    assert "script-src 'self'" in headers["content-security-policy"]
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["permissions-policy"] == "microphone=(self)"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-cache"
    assert get(node.url + path, {"If-None-Match": headers["etag"]})[0] == 304


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", list(WIDTHS))
def test_the_page_fits_its_window(
    node: Node, browser: Browser, watch: Watch, width: str, scheme: str
) -> None:
    size = WIDTHS[width]
    context = browser.new_context(
        viewport=size, color_scheme="dark" if scheme == "dark" else "light"
    )
    page = watch.over(context.new_page())
    open_room(page, node.url, f"a-name-that-is-too-long-for-a-{width}-{scheme}")
    speak(page, "Ada Lovelace")
    expect_finals(page, 1)
    ARTIFACTS.mkdir(exist_ok=True)
    page.screenshot(path=ARTIFACTS / f"page-{width}-{scheme}.png")

    assert page.evaluate("document.documentElement.scrollWidth") == size["width"]
    for part in ("#speak", "#state", "#copy", "#device", "#dropped"):
        expect(page.locator(part)).to_be_in_viewport(ratio=1)

    context.close()
