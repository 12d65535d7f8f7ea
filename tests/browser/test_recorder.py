"""What Chromium's own MediaRecorder writes, blob by blob, through the decoder."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from pathlib import Path
from typing import TypedDict

import pytest
from playwright.sync_api import Page

from server.decoding.pipeline import Pipeline
from tests.browser.node import Node
from tests.encoded import PCM, ffmpeg, likeness

pytestmark = pytest.mark.browser

SECONDS = 1.5
RECORD = """async (milliseconds) => {
  const stream = await navigator.mediaDevices.getUserMedia({ audio: true });
  const record = () => new Promise((done) => {
    const recorder = new MediaRecorder(stream, { mimeType: "audio/webm;codecs=opus" });
    const blobs = [];
    recorder.ondataavailable = ({ data }) => blobs.push(data);
    recorder.onstop = () => done(blobs);
    recorder.start(100);
    setTimeout(() => recorder.stop(), milliseconds);
  });
  const text = async (blob) =>
    btoa(String.fromCharCode(...new Uint8Array(await blob.arrayBuffer())));
  const recordings = [await record(), await record()];
  stream.getTracks().forEach((track) => track.stop());
  return Promise.all(recordings.map((blobs) => Promise.all(blobs.map(text))));
}"""


class Heard(TypedDict):
    """What came of blobs: all PCM, and how much with each of them."""

    pcm: bytes
    sizes: list[int]


def hear(blobs: Iterable[bytes]) -> Heard:
    pipeline = Pipeline("webm")
    pcm, sizes = b"", []
    for blob in blobs:
        pipeline.feed(blob)
        sizes.append(len(more := pipeline.work(10**9)))
        pcm += more

    pipeline.end()
    return {"pcm": pcm + pipeline.work(10**9) + pipeline.finish(), "sizes": sizes}


@pytest.fixture
def recordings(node: Node, page: Page) -> list[list[bytes]]:
    """Record the microphone twice."""
    page.goto(node.url)
    told: list[list[str]] = page.evaluate(RECORD, SECONDS * 1000)
    return [[base64.b64decode(blob) for blob in blobs] for blobs in told]


def test_recordings_are_decoded_and_resumed(recordings: list[list[bytes]], tmp_path: Path) -> None:
    first, second = ([blob for blob in blobs if blob] for blobs in recordings)
    whole, other = hear(first), hear(second)

    reference = ffmpeg("-f webm", PCM, b"".join(first))
    assert abs(len(whole["pcm"]) - len(reference)) <= 64
    assert likeness(whole["pcm"], reference) > 40
    assert len(whole["pcm"]) / 32_000 == pytest.approx(SECONDS, abs=0.4)
    assert min(whole["sizes"][1:-1]) > 0, "PCM comes with each blob"

    gone_on = hear([first[0] + first[1], *first[2:]])
    assert gone_on["pcm"] == whole["pcm"]

    anew = hear([*first[:6], *second])
    assert anew["pcm"].endswith(other["pcm"][-8000:])
    assert 0 <= len(anew["pcm"]) - sum(whole["sizes"][:6]) - len(other["pcm"]) <= 64

    for torn in ([first[5][31:]], [first[5][:-31]], [first[5][:40] + first[6][40:]], []):
        heard = hear([*first[:5], *torn, *first[7:]])
        missing = (len(whole["pcm"]) - len(heard["pcm"])) / 32_000
        assert 0 < missing < 0.5
        assert likeness(heard["pcm"][-8000:], whole["pcm"][-8000:]) > 20
