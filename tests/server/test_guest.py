"""Engines that a client names by address: only what is listed, however it is written."""

from __future__ import annotations

import pytest

from actors.errors import Refused, UpstreamLost
from actors.messages import AudioSpec
from server.engines.guest import Guests
from server.engines.mapped import MappedDialect
from server.engines.options import WebSocket
from server.engines.providers import websocket
from server.engines.remote import Slots
from tests.doubles import GenericDouble, numbered, refuse
from tests.engine_contract import converse, finals, frames
from tests.server.remotes import ANSWERS

pytestmark = pytest.mark.anyio

HOSTS = ("stt.example", "Other.Example:8443", "10.0.0.7", "[2001:DB8::1]", "xn--bcher-kva.example")

ALLOWED = (
    "wss://stt.example",
    "wss://stt.example/",
    "wss://stt.example:443/v1?rate=16000",
    "ws://stt.example:80/",
    "WSS://STT.Example/Path",
    "wss://stt.example/?to=wss://evil.example/@",
    "wss://other.example:8443/x",
    "ws://other.example:8443/x",
    "ws://10.0.0.7/",
    "wss://[2001:db8::1]/",
    "wss://[2001:0db8:0:0::0001]:443/",
    "wss://xn--bcher-kva.example/",
)
FORBIDDEN = (
    "",
    "stt.example",
    "//stt.example/",
    "http://stt.example/",
    "https://stt.example/",
    "file:///etc/passwd",
    "ws:stt.example",
    "ws:///stt.example",
    "wss://evil.example/",
    "wss://evil.example/stt.example",
    "wss://evil.example?stt.example",
    "wss://evil.example#stt.example",
    "wss://stt.example.evil.example/",
    "wss://evilstt.example/",
    "wss://a.stt.example/",
    "wss://stt.example./",
    "wss://stt.example../",
    "wss://.stt.example/",
    "wss://stt..example/",
    "wss://stt.example:8443/",
    "ws://stt.example:443/",
    "wss://stt.example:80/",
    "wss://stt.example:/",
    "wss://stt.example:0443/",
    "wss://stt.example:443443/",
    "wss://stt.example:99999/",
    "wss://stt.example:0/",
    "wss://stt.example:-1/",
    "wss://stt.example:\uff14\uff14\uff13/",
    "wss://other.example/",
    "wss://user@stt.example/",
    "wss://user:pass@stt.example/",
    "wss://stt.example@evil.example/",
    "wss://stt.example:443@evil.example/",
    "wss://evil.example\\@stt.example/",
    "wss://stt.example\\.evil.example/",
    "wss://stt.example\\@evil.example/",
    "wss:\\\\stt.example/",
    "wss://stt.example/#evil",
    "wss://stt.example#@evil.example/",
    "wss://stt%2eexample/",
    "wss://stt.example%2f@evil.example/",
    "wss://stt.example%00.evil.example/",
    "wss://stt.example%/",
    "wss://\uff53\uff54\uff54.example/",
    "wss://stt\u3002example/",
    "wss://\u017ftt.example/",
    "wss://bücher.example/",
    "wss://stt.example/ü",
    "wss://stt.example/\r\nHost: evil.example",
    "wss://stt.example\r\n/",
    "wss://stt.example\t/",
    " wss://stt.example/",
    "wss://stt.example/ ",
    "wss://stt.example\0/",
    "wss://stt.example/\0",
    "wss://127.0.0.1/",
    "wss://localhost/",
    "wss://0/",
    "wss://2130706433/",
    "wss://0x0a000007/",
    "ws://10.0.7/",
    "ws://012.0.0.7/",
    "ws://10.0.0.07/",
    "ws://[::ffff:10.0.0.7]/",
    "wss://[::1]/",
    "wss://[::]/",
    "wss://[2001:db8::1%25eth0]/",
    "wss://[2001:db8::1/",
    "wss://2001:db8::1/",
    "wss://[stt.example]/",
    "wss://[2001:db8::1].evil.example/",
    "wss://169.254.169.254/latest/meta-data",
    f"wss://{'a' * 64}.example/",
)


@pytest.mark.parametrize("url", ALLOWED)
def test_a_listed_host_is_taken(url: str) -> None:
    Guests(WebSocket(hosts=HOSTS)).engine(url).check(AudioSpec())


@pytest.mark.parametrize("url", FORBIDDEN, ids=repr)
def test_everything_else_is_forbidden(url: str) -> None:
    with pytest.raises(Refused) as refusal:
        Guests(WebSocket(hosts=HOSTS)).engine(url)

    error = refusal.value
    assert (error.code, error.status) == ("engine_forbidden", 403)
    assert (error.field, error.setting) == ("engine", "engines.websocket.hosts")
    assert not url or url not in str(error)


@pytest.mark.parametrize("url", ALLOWED)
def test_without_a_list_nothing_is_taken(url: str) -> None:
    with pytest.raises(Refused):
        Guests(WebSocket()).engine(url)


@pytest.mark.parametrize(
    ("own", "guest", "sent"),
    [
        ("", "wss://stt.example/", True),
        ("wss://stt.example/a", "wss://stt.example/b", True),
        ("wss://stt.example/a", "ws://stt.example/b", False),
        ("wss://stt.example/a", "wss://other.example:8443/", False),
    ],
)
def test_headers_go_to_the_host_that_they_are_meant_for(own: str, guest: str, sent: bool) -> None:
    options = WebSocket(url=own, hosts=HOSTS, headers={"X-Key": "secret"})
    engine = Guests(options).engine(guest)
    dialect = engine._dialect(AudioSpec())
    assert isinstance(dialect, MappedDialect)
    assert dialect.headers == ([("X-Key", "secret")] if sent else ())


@pytest.fixture
def anyio_backend() -> str:
    """Real time: the double knows of no other."""
    return "asyncio"


async def test_a_guest_is_spoken_to_as_the_settings_say_and_shares_their_streams() -> None:
    with GenericDouble() as double:
        options = WebSocket(
            hosts=(f"127.0.0.1:{double.port}",),
            headers={"X-Key": double.secret},
            answers=ANSWERS,
            end="binary-empty",
            max_streams=1,
        )
        slots = Slots(1)
        guest = Guests(options, slots).engine(f"{double.url}?rate=16000")
        async with guest.open(AudioSpec()) as stream:
            for engine in (Guests(options, slots).engine(double.url), guest):
                with pytest.raises(Refused) as refusal:
                    async with engine.open(AudioSpec()):
                        raise AssertionError("it was let in")

                assert refusal.value.setting == "engines.websocket.max_streams"

            assert websocket(options, slots).streams == 1
            found = await converse(stream, frames(numbered(1, 50)))

        assert finals(found) == [" ".join(map(str, range(1, 51)))]
        double.plan(refuse(302, location="ws://127.0.0.1:1/"))
        with pytest.raises((Refused, UpstreamLost)) as answer:
            async with guest.open(AudioSpec()):
                raise AssertionError("it was let in")

        assert "not followed" in str(answer.value)
        assert len(double.requests) == 2
