"""Token ids as text and bytes, for the ways vocabularies spell them."""

from __future__ import annotations

import math

import pytest

tokenizers = pytest.importorskip("tokenizers", exc_type=ImportError)
# What follows needs tokenizers to be there.
from tokenizers import AddedToken, Tokenizer, decoders, models  # noqa: E402

from forebay.engines.vocabulary import LOWEST_LOGPROB, Vocabulary  # noqa: E402


def tokenizer(pieces: list[str], decoder: object, added: tuple[AddedToken, ...] = ()) -> Tokenizer:
    made = Tokenizer(models.BPE({piece: number for number, piece in enumerate(pieces)}, []))
    made.decoder = decoder
    made.add_tokens(list(added))
    return made


def test_byte_level_pieces_are_bytes() -> None:
    """A piece is the bytes its characters stand for, also where they are a part of a character."""
    pieces = ["the", "\u0120water", "\u010a", "\u00f0\u0141\u013a", "\u0122"]
    vocabulary = Vocabulary(tokenizer(pieces, decoders.ByteLevel()))
    found = [vocabulary.token_bytes(number) for number in range(len(pieces))]
    assert found == [b"the", b" water", b"\n", b"\xf0\x9f\x98", b"\x80"]
    assert b"".join(found[3:]).decode() == "😀"
    assert vocabulary.text(3) == "\ufffd"


def test_byte_level_covers_every_byte() -> None:
    """The 256 pieces of the alphabet are the 256 bytes, each once."""
    from tokenizers.pre_tokenizers import ByteLevel

    vocabulary = Vocabulary(tokenizer(sorted(ByteLevel.alphabet()), decoders.ByteLevel()))
    assert {vocabulary.token_bytes(number) for number in range(256)} == {bytes([byte]) for byte in range(256)}


def test_sentence_piece_spaces_and_byte_fallback() -> None:
    """Its space mark is a space, `<0xNN>` one byte; what merely looks similar is text."""
    decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    vocabulary = Vocabulary(tokenizer(["\u2581the", "<0xE6>", "<0x0A>", "<0xE6", "é"], decoder))
    assert [vocabulary.token_bytes(number) for number in range(5)] == [b" the", b"\xe6", b"\n", b"<0xE6", "é".encode()]


def test_metaspace_and_word_pieces() -> None:
    """A metaspace is a space; a word piece begins a word unless its prefix says otherwise."""
    metaspace = Vocabulary(tokenizer(["\u2581the", "se"], decoders.Metaspace()))
    assert [metaspace.token_bytes(number) for number in (0, 1)] == [b" the", b"se"]
    words = Vocabulary(tokenizer(["the", "##se"], decoders.WordPiece()))
    assert [words.token_bytes(number) for number in (0, 1)] == [b" the", b"se"]


def test_added_tokens_are_themselves() -> None:
    """Special or not, an added token is its text, whatever the pieces' spelling; the special ones are known."""
    made = tokenizer(["a"], decoders.ByteLevel(), (AddedToken("<end é>", special=True), AddedToken("<tool>")))
    vocabulary = Vocabulary(made)
    assert [vocabulary.text(number) for number in (1, 2)] == ["<end é>", "<tool>"]
    assert vocabulary.special_tokens == {"<end é>"}
    assert len(vocabulary) == 3


def test_ids_without_a_token_are_empty() -> None:
    """Models have more rows than tokenizers have tokens."""
    assert Vocabulary(tokenizer(["a"], None)).token_bytes(7) == b""


def test_minus_infinity_becomes_a_number() -> None:
    """JSON has no infinity."""
    alternative = Vocabulary(tokenizer(["a"], None)).alternative(0, -math.inf)
    assert (alternative.logprob, alternative.token) == (LOWEST_LOGPROB, "a")


def test_the_demo_models_bytes_make_its_text() -> None:
    """Encoded and put together from its tokens' bytes, any text is itself."""
    transformers = pytest.importorskip("transformers", exc_type=ImportError)
    from forebay.engines.model_source import resolve_model
    from forebay.settings import Settings

    model = resolve_model(Settings(_env_file=None), lambda _: None)
    made = transformers.AutoTokenizer.from_pretrained(model.path_or_id)
    vocabulary = Vocabulary(made)
    text = "naïve 日本語 😀 \u0301x\tand\n\nlines <|im_start|>user"
    ids = made.encode(text, add_special_tokens=False)
    assert b"".join(vocabulary.token_bytes(token_id) for token_id in ids).decode() == text
