"""Which engine a session gets, and how its audio is meant."""

from __future__ import annotations

import pytest

from actors.catalog import Catalog, PcmOnly, spec_of
from actors.commands import Start
from actors.errors import Refused
from actors.messages import AudioSpec
from tests.fakes import FakeEngine


def test_the_catalog_chooses_by_name_by_order_and_by_what_engines_take() -> None:
    class Picky(FakeEngine):
        """An engine for 8 kHz."""

        def check(self, spec: AudioSpec) -> None:
            """Refuse other rates."""
            if spec.rate != 8000:
                raise Refused("unsupported_audio", "8 kHz only", "rate")

    a, b, c = FakeEngine("a"), Picky("b"), FakeEngine("c")
    engines = {"a": a, "b": b, "c": c}
    narrow, wide = AudioSpec(rate=8000), AudioSpec()
    assert Catalog(engines).choose("", wide) == [a]
    assert Catalog(engines, ["c", "b", "a"]).choose("", wide) == [c, a]
    assert Catalog(engines, ["c", "b", "a"]).choose("", narrow) == [c, b, a]
    assert Catalog(engines).choose("b", narrow) == [b]
    for name, spec, code in [
        ("b", wide, "unsupported_audio"),
        ("x", wide, "unknown_engine"),
        ("ws://x", wide, "unknown_engine"),
    ]:
        with pytest.raises(Refused) as refusal:
            Catalog(engines).choose(name, spec)

        assert refusal.value.code == code

    with pytest.raises(Refused):
        Catalog({}).choose("", wide)

    guest = FakeEngine("guest")
    assert Catalog(engines, guest=lambda url: guest).choose("wss://x/y", wide) == [guest]


@pytest.mark.parametrize(
    ("encoding", "rate", "meant"),
    [
        ("pcm_s16le", None, 16000),
        ("mulaw", None, 8000),
        ("alaw", None, 8000),
        ("mulaw", 16000, 16000),
        ("webm", None, 16000),
        ("pcm_s16le", 0, 0),
    ],
)
def test_the_usual_rate_is_that_of_the_encoding(
    encoding: str, rate: int | None, meant: int
) -> None:
    start = Start(room="a", encoding=encoding, rate=rate, channels=2, language="de")
    assert spec_of(start) == AudioSpec(encoding, meant, 2, "de")


def test_a_tenant_with_engines_of_its_own_has_no_others() -> None:
    a, b, c = FakeEngine("a"), FakeEngine("b"), FakeEngine("c")
    catalog = Catalog({"a": a, "b": b, "c": c}, ["a", "b"], lambda address: a)
    catalog.own = lambda tenant: ("c", "b") if tenant == "acme" else ()
    assert catalog.choose("", AudioSpec(), "acme") == [c, b]
    assert catalog.choose("b", AudioSpec(), "acme") == [b]
    for name in ("a", "ws://x"):
        assert catalog.choose(name, AudioSpec(), "other") == [a]
        with pytest.raises(Refused, match="the engines here are: c, b"):
            catalog.choose(name, AudioSpec(), "acme")


def test_a_node_without_decoders_takes_audio_as_it_is() -> None:
    spec = AudioSpec("webm")
    assert PcmOnly().plan(spec) is spec
    assert PcmOnly().open(spec) is None
