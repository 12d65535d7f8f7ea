"""roomcast demo: what a visitor sees first."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from tests.engine_contract import LIBRIVOX
from tests.processes import answers, free_port
from tests.server.commands import roomcast, write_wav


def test_the_demo_prints_the_captions_and_leaves_nothing_behind() -> None:
    port = free_port()
    done = roomcast("demo", "--exit", "--port", str(port))
    assert done.returncode == 0, done.stderr
    assert f"the page is at http://127.0.0.1:{port}/?room=demo\n" in done.stdout
    captions = re.findall(r"^ +(\d+\.\d) s  (.+)$", done.stdout, re.MULTILINE)
    times = [float(time) for time, _ in captions]
    assert len(captions) >= 5
    assert times == sorted(times)
    assert "mr john dashwood" in captions[0][1]
    assert "\n5 of 5 utterances came back, word error rate 0." in done.stdout
    assert "\x1b" not in done.stdout
    assert not answers(f"http://127.0.0.1:{port}/livez")


@pytest.mark.parametrize(
    ("transcription", "said"),
    [
        (None, "no recordings in FOLDER; Debian has them in the package pocketsphinx-testdata"),
        ("nothing of use\n", "no recordings in FOLDER;"),
        ("<s> a </s> (missing)\n", "FOLDER/missing.wav: No such file or directory"),
        ("<s> a </s> (text)\n", "FOLDER/text.wav is no WAV file that can be read"),
        ("<s> a </s> (fast)\n", "FOLDER/fast.wav: mono 16-bit PCM at 16000 Hz is needed"),
    ],
)
def test_a_folder_without_recordings_is_status_2(
    tmp_path: Path, transcription: str | None, said: str
) -> None:
    (tmp_path / "text.wav").write_text("text")
    write_wav(tmp_path / "fast.wav", bytes(640), 44100)
    if transcription is not None:
        (tmp_path / "transcription").write_text(transcription)

    done = roomcast("demo", "--exit", "--recordings", tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"Error: {said.replace('FOLDER', str(tmp_path))}")


def test_captions_that_are_not_what_was_said_are_status_1(tmp_path: Path) -> None:
    first = min(LIBRIVOX.glob("*.wav"))
    shutil.copy(first, tmp_path / "a.wav")
    (tmp_path / "transcription").write_text("<s> something else was said </s> (a)\n")
    done = roomcast("demo", "--exit", "--recordings", tmp_path, "--port", str(free_port()))
    assert done.returncode == 1
    assert "1 of 1 utterances came back" in done.stdout
    assert done.stderr.endswith("Error: the captions are not good enough\n")
