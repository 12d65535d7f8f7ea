"""The doubles keep to what is documented, so that what passes against them means something."""

from __future__ import annotations

import json
from collections.abc import Iterator
from urllib.parse import urlencode

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tests.doubles import DeepgramDouble, RevAiDouble, VoskDouble, abort, numbered

RAW = "audio/x-raw;layout=interleaved;rate=16000;format=S16LE;channels=1"
DEEPGRAM = {"model": "nova-3", "encoding": "linear16", "sample_rate": "16000", "channels": "1"}


@pytest.fixture
def rev() -> Iterator[RevAiDouble]:
    with RevAiDouble() as double:
        yield double


@pytest.fixture
def deep() -> Iterator[DeepgramDouble]:
    with DeepgramDouble() as double:
        yield double


def call_revai(double: RevAiDouble, **parameters: str) -> ClientConnection:
    query = {"access_token": double.secret, "content_type": RAW, **parameters}
    return connect(f"{double.url}?{urlencode(query)}", proxy=None)


def call_deepgram(double: DeepgramDouble, key: str, **parameters: str) -> ClientConnection:
    headers = {"Authorization": f"Token {key}"}
    query = urlencode({**DEEPGRAM, **parameters})
    return connect(f"{double.url}?{query}", additional_headers=headers, proxy=None)


def ending(client: ClientConnection) -> tuple[int, str]:
    """Read to the close; return its code and reason, 1006 if there is none."""
    with pytest.raises(ConnectionClosed) as closed:
        read_all(client)

    close = closed.value.rcvd
    return (1006, "") if close is None else (close.code, close.reason)


def read_all(client: ClientConnection) -> None:
    while True:
        client.recv(timeout=5)


@pytest.mark.parametrize(
    ("parameters", "code", "named"),
    [
        ({"access_token": "wrong"}, 4001, "access_token"),
        ({"content_type": "audio/x-raw;rate=16000"}, 4002, "content_type"),
        ({"content_type": RAW.replace("16000", "7000")}, 4002, "content_type"),
        ({"metadata": "x" * 513}, 4002, "metadata"),
        ({"filter_profanity": "yes"}, 4002, "filter_profanity"),
        ({"delete_after_seconds": "-1"}, 4002, "delete_after_seconds"),
        ({"priority": "high"}, 4002, "priority"),
        ({"surprise": "1"}, 4002, "surprise"),
    ],
)
def test_revai_accepts_and_then_closes(
    rev: RevAiDouble, parameters: dict[str, str], code: int, named: str
) -> None:
    with call_revai(rev, **parameters) as client:
        found, reason = ending(client)

    assert found == code
    assert named in reason


@pytest.mark.parametrize("text", ["eos", '{"eof" : 1}', ""])
def test_revai_takes_no_text_but_eos(rev: RevAiDouble, text: str) -> None:
    with call_revai(rev) as client:
        client.send(text)
        assert ending(client)[0] == 1007


def test_revai_says_all_and_closes_after_eos(rev: RevAiDouble) -> None:
    with call_revai(rev) as client:
        client.send(numbered(1, 55))
        client.send("EOS")
        found = [json.loads(client.recv(timeout=5)) for _ in range(7)]
        assert ending(client) == (1000, "Normal Closure.")

    kinds = [each["type"] for each in found]
    assert kinds == ["connected", *["partial"] * 4, "final", "final"]
    assert found[0]["id"]
    assert bytes(rev.connections[0].audio) == numbered(1, 55)
    assert [each["value"] for each in found[1]["elements"]] == [str(n) for n in range(1, 11)]
    assert "ts" not in found[1]["elements"][0]
    assert "".join(each["value"] for each in found[6]["elements"]) == "51 52 53 54 55"


def test_revai_takes_audio_before_it_is_ready(rev: RevAiDouble) -> None:
    rev.ready_after = 0.1
    with call_revai(rev) as client:
        client.send(numbered(1, 50))
        client.send("EOS")
        assert json.loads(client.recv(timeout=5))["type"] == "connected"
        assert ending(client)[0] == 1000

    assert bytes(rev.connections[0].audio) == numbered(1, 50)


@pytest.mark.parametrize(
    ("key", "parameters", "status"),
    [("wrong", {}, 401), ("", {"encoding": "mp3"}, 400), ("", {"punctuate": "True"}, 400)],
)
def test_deepgram_refuses_the_upgrade_with_a_reason(
    deep: DeepgramDouble, key: str, parameters: dict[str, str], status: int
) -> None:
    with pytest.raises(InvalidStatus) as refusal:
        call_deepgram(deep, key or deep.secret, **parameters)

    response = refusal.value.response
    assert response.status_code == status
    assert response.headers["dg-error"]
    assert response.headers["dg-request-id"]


def test_deepgram_ignores_what_it_does_not_know(deep: DeepgramDouble) -> None:
    with call_deepgram(deep, deep.secret, surprise="1") as client:
        client.send('{"type":"CloseStream"}')
        results, metadata = (json.loads(client.recv(timeout=5)) for _ in range(2))
        assert (results["type"], metadata["type"]) == ("Results", "Metadata")
        assert ending(client)[0] == 1000


def test_deepgram_closes_on_an_empty_frame(deep: DeepgramDouble) -> None:
    with call_deepgram(deep, deep.secret) as client:
        client.send(b"")
        assert ending(client)[0] == 1011


def test_deepgram_answers_a_finalize(deep: DeepgramDouble) -> None:
    with call_deepgram(deep, deep.secret) as client:
        client.send('{"type":"Finalize"}')
        answer = json.loads(client.recv(timeout=5))
        assert (answer["is_final"], answer["from_finalize"]) == (True, True)
        client.send('{"type":"Surprise"}')
        assert json.loads(client.recv(timeout=5))["type"] == "Error"


def test_vosk_answers_each_message_once() -> None:
    with VoskDouble() as double, connect(double.url, proxy=None) as client:
        client.send('{ "config" : { "sample_rate" : 16000, "words" : 1 } }')
        answers = []
        for n in range(1, 61):
            client.send(numbered(n, n))
            answers.append(json.loads(client.recv(timeout=5)))

        assert [n for n, each in enumerate(answers, 1) if "text" in each] == [50]
        assert answers[49]["result"][0] == {"conf": 1.0, "end": 0.02, "start": 0.0, "word": "1"}
        client.send('{"eof" : 1}')
        assert json.loads(client.recv(timeout=5))["text"] == " ".join(map(str, range(51, 61)))
        assert ending(client)[0] == 1000


@pytest.mark.parametrize("text", ['{"eof":1}', "EOS"])
def test_vosk_compares_the_end_as_it_is(text: str) -> None:
    with VoskDouble() as double, connect(double.url, proxy=None) as client:
        client.send(text)
        assert ending(client)[0] == 1011


def test_faults_go_by_connection_and_by_bytes(rev: RevAiDouble) -> None:
    rev.plan(abort(after=1280), abort(after=640))
    for size in (1280, 640):
        with call_revai(rev) as client:
            for n in range(size // 640):
                client.send(numbered(n, n))

            assert ending(client) == (1006, "")

    rev.wait(lambda: not rev.open)
    assert [len(each.audio) for each in rev.connections] == [1280, 640]
