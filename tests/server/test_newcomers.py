"""The first message alone: what is one, and how many may be waited for."""

from __future__ import annotations

from contextlib import ExitStack, suppress

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.errors import Refused
from actors.wire import Codec
from server.newcomers import WANTED, Newcomers, brings_token_later, read_auth
from server.tokens import LENGTH

GOOD = {"type": "auth", "token": "t", "id": "i"}


def scope(query: bytes, *headers: tuple[bytes, bytes]) -> dict[str, object]:
    """Return the scope of an upgrade."""
    return {"type": "websocket", "query_string": query, "headers": headers, "subprotocols": []}


@pytest.mark.parametrize(
    ("query", "later"),
    [
        (b"auth=message", True),
        (b"rate=8000&auth=message&x=1", True),
        (b"", False),
        (b"auth", False),
        (b"auth=", False),
        (b"auth=messages", False),
        (b"xauth=message", False),
        (b"auth=message&token=", False),
        (b"auth=message&ticket=a", False),
    ],
)
def test_only_who_asks_for_it_and_has_no_credential_is_waited_for(
    query: bytes, later: bool
) -> None:
    assert brings_token_later(scope(query)) is later
    assert not brings_token_later(scope(query, (b"authorization", b"Bearer a")))


def test_a_first_message_is_read_in_both_encodings_and_shows_no_token() -> None:
    for data, codec in (
        (msgspec.json.encode(GOOD).decode(), "json"),
        (msgspec.json.encode(GOOD).decode(), "msgpack"),
        (msgspec.msgpack.encode(GOOD), "msgpack"),
    ):
        auth = read_auth(data, codec)  # type: ignore[arg-type]
        assert (auth.token, auth.id, repr(auth)) == ("t", "i", "Auth(id='i')")


@pytest.mark.parametrize("codec", ["json", "msgpack"])
def test_a_token_that_is_too_long_is_not_read(codec: Codec) -> None:
    encode = (lambda value: msgspec.json.encode(value).decode()) if codec == "json" else None
    for length, fits in ((LENGTH, True), (LENGTH + 1, False)):
        message = GOOD | {"token": "x" * length}
        data = encode(message) if encode else msgspec.msgpack.encode(message)
        if fits:
            assert len(read_auth(data, codec).token) == length
        else:
            with pytest.raises(Refused) as refused:
                read_auth(data, codec)

            assert (refused.value.code, refused.value.message) == ("unauthorized", WANTED)


@given(
    st.text(max_size=60) | st.binary(max_size=60) | st.just("[" * 100_000),
    st.sampled_from(["json", "msgpack"]),
)
def test_whatever_comes_first_it_is_a_token_or_refused(data: str | bytes, codec: Codec) -> None:
    with suppress(Refused):
        read_auth(data, codec)


def test_a_place_is_given_back_however_it_ends() -> None:
    newcomers = Newcomers(2, 5.0)
    with ExitStack() as stack:
        stack.enter_context(newcomers.place())
        stack.enter_context(newcomers.place())
        with pytest.raises(Refused) as refused, newcomers.place():
            raise AssertionError("there was none")

        assert (refused.value.code, refused.value.setting) == ("overload", "limits.unauthenticated")

    with pytest.raises(ValueError, match="it ended"), newcomers.place():
        raise ValueError("it ended")

    assert newcomers.count == 0
