"""The scripted engine's tokens: 256 bytes, three special tokens, and pieces that make its text look like text."""

from __future__ import annotations

END_OF_TEXT, IM_START, IM_END = 256, 257, 258
EOS = IM_END
SPECIALS = {END_OF_TEXT: "<|endoftext|>", IM_START: "<|im_start|>", IM_END: "<|im_end|>"}
FIRST_PIECE = 259

_SPACED = (
    "the of and to in a is that for it as was with be by on not he his but at are this have from or had an they which "
    "one you were all her she there would their we him been has when who will no more if out so up said what its about "
    "than into them can only other time new some could these two may first then do any like my now over such our man "
    "me even most made after also well did many before must years where much your way down should because long each "
    "just state people those too mr how little good world make very year still see work between life being under never "
    "day same another know while last us might great old off come since go against came right used take three river "
    "water light stone turbine flow gate basin dam stream power quiet deep clear slow store screen meter wall bridge "
    "answer question model token word line page small large warm cold north south east west early late morning evening "
    "house garden street market school music letter story paper number reason change begin open close carry hold build "
    "turn"
)
_BARE = "The In It This We You They There Here Yes No user assistant system ed ing ly er"

PIECES: tuple[str, ...] = (*(f" {word}" for word in dict.fromkeys(_SPACED.split())), *_BARE.split(), "\n\n")

TOKEN_BYTES: tuple[bytes, ...] = (
    *(bytes([value]) for value in range(256)),
    *(SPECIALS[token].encode() for token in sorted(SPECIALS)),
    *(piece.encode() for piece in PIECES),
)
"""What each token adds to a text in UTF-8; special tokens by their names."""

VOCAB_SIZE = len(TOKEN_BYTES)

PLAIN: dict[int, str] = {
    token: TOKEN_BYTES[token].decode() for token in range(VOCAB_SIZE) if token < 128 or token >= FIRST_PIECE
}
"""The text of the tokens that are whole characters and not special."""
