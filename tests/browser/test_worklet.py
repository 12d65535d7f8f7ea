"""The microphone's worklet, fed with tones by the browser's own offline renderer."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page

from tests.browser.node import Node

pytestmark = pytest.mark.browser

RENDER = """async ({ rate, hertz }) => {
  const context = new OfflineAudioContext(1, rate, rate);
  await context.audioWorklet.addModule("/static/pcm16.js");
  const node = new AudioWorkletNode(context, "pcm16", { numberOfOutputs: 0 });
  const frames = [];
  const all = new Promise((done) => {
    node.port.onmessage = ({ data }) => frames.push(data) === 24 && done();
  });
  const tone = new OscillatorNode(context, { frequency: hertz });
  const quieter = new GainNode(context, { gain: 0.5 });
  tone.connect(quieter).connect(node);
  tone.start();
  await context.startRendering();
  await all;
  const middle = frames.slice(4, 20).flatMap((frame) => [...frame]);
  const power = middle.reduce((sum, sample) => sum + (sample / 32768) ** 2, 0) / middle.length;
  const turns = middle.filter((sample, at) => at > 0 && sample >= 0 && middle[at - 1] < 0).length;
  return { samples: frames.map(({ length }) => length), amplitude: Math.sqrt(2 * power), turns };
}"""
MIDDLE_SECONDS = 16 * 0.04


@pytest.fixture
def tuned(node: Node, page: Page) -> Page:
    """Open the page, whose origin may load the worklet."""
    page.goto(node.url)
    return page


@pytest.mark.parametrize("rate", [16000, 44100, 48000, 96000])
def test_speech_comes_out_as_it_went_in_at_16_khz(tuned: Page, rate: int) -> None:
    heard = tuned.evaluate(RENDER, {"rate": rate, "hertz": 1000})

    assert set(heard["samples"]) == {640}
    assert heard["amplitude"] == pytest.approx(0.5, rel=0.01)
    assert heard["turns"] == pytest.approx(1000 * MIDDLE_SECONDS, abs=1)


@pytest.mark.parametrize("rate", [44100, 48000, 96000])
def test_what_is_too_high_for_16_khz_is_gone(tuned: Page, rate: int) -> None:
    heard = tuned.evaluate(RENDER, {"rate": rate, "hertz": 10000})

    assert heard["amplitude"] < 0.001
