"""Substituted words are the masked LM's predictions, for any kind of tokenizer, and drawn as the paper draws them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    AutoModel,
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    DistilBertConfig,
    DistilBertForMaskedLM,
    ModernBertConfig,
    ModernBertForMaskedLM,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForMaskedLM,
)

from augkd.candidates.candidate import Candidate
from augkd.candidates.substitution.filled_blocks import Slot
from augkd.candidates.substitution.masked_words import fill, longest_input
from augkd.candidates.substitution.substitute import Substitutions, replace_words, rng_of_example, substitute
from augkd.candidates.words import STOP_WORDS, WORD, cased, replaceable, whole_words
from augkd.data.task import Example
from augkd.errors import ModelError, RecipeError
from augkd.models.masked_lm import logits_at

TEXTS = [
    "What famous city lies near the river ?",
    "Where do tannins come from ?",  # "tannins" has several pieces: no text of CORPUS contains it
    "It isn't the 4th Street bridge, she said",
    "WHO is the NASA director ?",
    "The old house stands by the sea and the garden behind it is full of flowers",
]
CORPUS = [
    TEXTS[0],
    *TEXTS[2:],
    "where do they come from",
    "the city by the sea",
    "old river old street",
    "a house full of flowers said the director",
] * 4


# ---- tiny models of three kinds of tokenizer ----


def scaled(model: Any) -> Any:
    """Larger matrices, so that probabilities differ by more than rounding."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(5 if parameter.dim() == 2 else 1)
    return model.eval()


def roberta(tokenizer: Any) -> Any:
    config = RobertaConfig(
        vocab_size=len(tokenizer) + 3,  # padded, as vocabularies often are
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=130,
        type_vocab_size=1,
        pad_token_id=tokenizer.pad_token_id,
    )
    return RobertaForMaskedLM(config)


def wrapped(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    ids = [(token, tokenizer.token_to_id(token)) for token in ("<s>", "</s>")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> $B:1 </s>:1", special_tokens=ids
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        cls_token="<s>",
        sep_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        mask_token="<mask>",
    )


SPECIAL: list[str | AddedToken] = ["<s>", "<pad>", "</s>", "<unk>"]
SPECIAL.append(AddedToken("<mask>", lstrip=True, special=True))  # takes the space before it, as RoBERTa's does


def word_piece() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.WordPiece(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.train_from_iterator(CORPUS, trainers.WordPieceTrainer(vocab_size=250, special_tokens=SPECIAL))
    return wrapped(tokenizer)


def byte_level() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=500, special_tokens=SPECIAL, initial_alphabet=alphabet)
    tokenizer.train_from_iterator(CORPUS, trainer)
    return wrapped(tokenizer)


def sentence_piece() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="first")
    trainer = trainers.UnigramTrainer(vocab_size=90, special_tokens=SPECIAL, unk_token="<unk>")
    tokenizer.train_from_iterator(CORPUS, trainer)
    return wrapped(tokenizer)


@pytest.fixture(scope="module")
def bert() -> tuple[Any, Any]:
    torch.manual_seed(1)
    tokenizer = word_piece()
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        pad_token_id=tokenizer.pad_token_id,
    )
    return scaled(BertForMaskedLM(config)), tokenizer


@pytest.fixture(scope="module")
def distilbert(bert: tuple[Any, Any]) -> tuple[Any, Any]:
    torch.manual_seed(2)
    config = DistilBertConfig(
        vocab_size=len(bert[1]), dim=32, n_layers=2, n_heads=2, hidden_dim=64, max_position_embeddings=64
    )
    return scaled(DistilBertForMaskedLM(config)), bert[1]


@pytest.fixture(scope="module")
def modernbert() -> tuple[Any, Any]:
    torch.manual_seed(2)
    tokenizer = byte_level()
    config = ModernBertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=128,
        **{f"{name}_token_id": tokenizer.pad_token_id for name in ("pad", "bos", "eos", "cls", "sep")},
    )
    return scaled(ModernBertForMaskedLM(config)), tokenizer


@pytest.fixture(scope="module")
def byte_bpe() -> tuple[Any, Any]:
    torch.manual_seed(3)
    tokenizer = byte_level()
    return scaled(roberta(tokenizer)), tokenizer


@pytest.fixture(scope="module")
def metaspace() -> tuple[Any, Any]:
    torch.manual_seed(4)
    tokenizer = sentence_piece()
    return scaled(roberta(tokenizer)), tokenizer


def filled(pair: tuple[Any, Any], texts: Sequence[str] = TEXTS, **options: Any) -> list[list[Slot]]:
    defaults = {"top_k": 5, "max_length": 64, "batch_tokens": 256, "stop_words": STOP_WORDS}
    return fill(texts, *pair, **(defaults | options)).slots


def substituted(pair: tuple[Any, Any], *texts: str | tuple[str, str], **options: Any) -> Substitutions:
    examples = [
        Example(f"e{number}", text) if isinstance(text, str) else Example(f"e{number}", *text)
        for number, text in enumerate(texts)
    ]
    return substitute(examples, *pair, **({"seed": 0, "max_length": 64} | options))


def by_hand(pair: tuple[Any, Any], text: str, slot: Slot, top_k: int) -> tuple[list[str], list[float]]:
    """The published way: one forward of `masked [SEP] text`, all logits, sorted; pieces are words by their spelling."""
    model, tokenizer = pair
    masked = text[: slot.start] + tokenizer.mask_token + text[slot.stop :]
    inputs = tokenizer(masked, text, return_tensors="pt", return_token_type_ids=model.config.model_type == "bert")
    place = inputs["input_ids"][0].tolist().index(tokenizer.mask_token_id)
    with torch.no_grad():
        probabilities = model(**inputs).logits[0, place].softmax(dim=-1)
    start = tokenizer.tokenize("a b")[-1][:-1]  # Ġ, ▁ or nothing
    words: dict[str, float] = {}
    original = text[slot.start : slot.stop]
    for id_ in probabilities.argsort(descending=True).tolist():
        if id_ >= len(tokenizer) or id_ in tokenizer.all_special_ids:
            continue
        piece = tokenizer.convert_ids_to_tokens(id_)
        name = piece.removeprefix(start)
        if name.isalpha() and tokenizer.tokenize(f"to {name}")[-1] != piece:
            continue  # a Unigram tokenizer may prefer two pieces to one that it has
        if name.lower() in STOP_WORDS or len(name) == 1:
            continue
        if piece.startswith(start) and name.isalpha() and name.isascii() and name.lower() != original.lower():
            words.setdefault(name.lower(), float(probabilities[id_]))
    return list(words)[:top_k], list(words.values())[:top_k]


# ---- predictions ----


@pytest.mark.parametrize("kind", ["bert", "distilbert"])
def test_the_words_are_those_of_one_plain_forward_for_each_masked_word(
    kind: str, request: pytest.FixtureRequest
) -> None:
    pair = request.getfixturevalue(kind)
    for text, slots in zip(TEXTS, filled(pair), strict=True):
        assert slots
        for slot in slots:
            words, probabilities = by_hand(pair, text, slot, 5)
            ours = [word.lower() for word in slot.words if word.isascii()]
            assert ours == words[: len(ours)]
            if len(ours) == 5:
                assert slot.probabilities == pytest.approx(probabilities, rel=1e-4)


@pytest.mark.parametrize("kind", ["byte_bpe", "metaspace", "modernbert"])
def test_byte_level_and_sentencepiece_vocabularies_give_whole_words_too(
    kind: str, request: pytest.FixtureRequest
) -> None:
    pair = request.getfixturevalue(kind)
    compared = 0
    for text, slots in zip(TEXTS[:4], filled(pair, TEXTS[:4], max_length=128), strict=True):
        for slot in slots:
            if slot.start and text[slot.start - 1] == " ":
                compared += 1
                words, probabilities = by_hand(pair, text, slot, 5)
                assert [word.lower() for word in slot.words] == words
                assert slot.probabilities == pytest.approx(probabilities, rel=1e-4)
    assert compared >= 9


@pytest.mark.parametrize(("kind", "sign"), [("bert", ""), ("byte_bpe", "Ġ"), ("metaspace", "▁")])
def test_a_continuation_is_no_whole_word_in_any_vocabulary(
    kind: str, sign: str, request: pytest.FixtureRequest
) -> None:
    tokenizer = request.getfixturevalue(kind)[1]
    pieces = [piece for piece in tokenizer.get_vocab() if not piece.startswith("<")]
    words = {piece.removeprefix(sign) for piece in pieces if piece.startswith(sign)}
    words = {word for word in words if word.isalpha() and word.isascii() and len(word) > 1}
    whole = {word for word in words if tokenizer.tokenize(f"to {word}")[-1] == sign + word}  # a Unigram may prefer two
    assert {name for name in whole_words(tokenizer).names if name.isascii()} == whole
    assert len(whole) >= len(words) - 2
    assert {piece.strip("#▁Ġ") for piece in pieces if len(piece) > 2 and piece.strip("#▁Ġ").isalpha()} - words


def test_the_whole_words_of_bert_are_its_pieces_of_letters(tiny_bert: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_bert)
    words = whole_words(tokenizer)
    pieces = {piece for piece in tokenizer.get_vocab() if piece.isalpha() and (len(piece) > 1 or piece > "z")}
    assert set(words.names) <= pieces
    assert {name for name in pieces if name.isascii()} == {name for name in words.names if name.isascii()}
    assert torch.equal(words.ids[0], words.ids[1])


def test_the_first_word_of_a_byte_level_text_is_predicted_as_the_piece_without_space(byte_bpe: Any) -> None:
    words = whole_words(byte_bpe[1])
    after_space, attached = byte_bpe[1].convert_ids_to_tokens(words.ids[:, words.names.index("the")].tolist())
    assert (after_space, attached) == ("Ġthe", "the")
    first = filled(byte_bpe, ["Where flowers"], stop_words=())[0][0]
    inputs = byte_bpe[1]("<mask> flowers", "Where flowers", return_tensors="pt", return_token_type_ids=False)
    place = inputs["input_ids"][0].tolist().index(byte_bpe[1].mask_token_id)
    with torch.no_grad():
        probabilities = byte_bpe[0](**inputs).logits[0, place].softmax(dim=-1)
    column = next(number for number, name in enumerate(words.names) if cased(name, "Where") == first.words[0])
    assert first.probabilities[0] == pytest.approx(float(probabilities[words.ids[1, column]]), rel=1e-4)


def test_the_head_sees_masked_positions_only_and_gives_the_same_logits(bert: Any) -> None:
    model, tokenizer = bert
    inputs = dict(tokenizer(TEXTS[:2], padding=True, return_tensors="pt", return_token_type_ids=True))
    places = torch.tensor([3, 5])
    where = torch.zeros_like(inputs["input_ids"], dtype=torch.bool)
    where[[0, 1], places] = True
    seen: list[tuple[int, ...]] = []
    handle = model.get_output_embeddings().register_forward_hook(lambda _m, _a, output: seen.append(output.shape))
    with torch.no_grad():
        masked = logits_at(model, inputs, where)
        everywhere = model(**inputs).logits  # and the hook is gone
    handle.remove()
    assert torch.allclose(masked, everywhere[[0, 1], places], atol=1e-5)
    assert not torch.allclose(masked, everywhere[[0, 1], places + 1], atol=1e-2)
    assert seen[0][:2] == (1, 2)
    assert seen[1][:2] == everywhere.shape[:2]


def test_without_the_restriction_to_whole_words_a_random_model_would_predict_pieces(bert: Any) -> None:
    model, tokenizer = bert
    inputs = tokenizer(
        "What famous <mask> lies near the river ?", TEXTS[0], return_tensors="pt", return_token_type_ids=True
    )
    with torch.no_grad():
        best = model(**inputs).logits[0, 3].argsort(descending=True)[:40].tolist()
    pieces = tokenizer.convert_ids_to_tokens(best)
    assert any(piece.startswith("##") or not piece.isalpha() for piece in pieces)
    assert all(word.isalpha() for slots in filled(bert, top_k=100) for slot in slots for word in slot.words)


def test_a_stop_word_replaces_nothing(bert: Any) -> None:
    words = {word.lower() for slots in filled(bert, top_k=100) for slot in slots for word in slot.words}
    unrestricted = {
        word.lower() for slots in filled(bert, top_k=100, stop_words=()) for slot in slots for word in slot.words
    }
    assert not words & STOP_WORDS
    assert unrestricted & STOP_WORDS == {name for name in whole_words(bert[1]).names if name in STOP_WORDS}
    assert {"city", "street"} <= words < unrestricted


def test_a_word_of_several_pieces_is_masked_as_one(bert: Any) -> None:
    tokenizer = bert[1]
    assert len(tokenizer.tokenize("tannins")) > 1
    forwarded: list[list[int]] = []
    handle = bert[0].register_forward_pre_hook(
        lambda _m, _a, given: forwarded.extend(given["input_ids"].tolist()), with_kwargs=True
    )
    slots = filled(bert, ["Where do tannins come ?"])
    handle.remove()
    assert [("Where do tannins come ?"[s.start : s.stop]) for s in slots[0]] == ["tannins", "come"]
    expected = tokenizer("Where do <mask> come ?", "Where do tannins come ?")["input_ids"]
    assert expected in [row[: len(expected)] for row in forwarded]


def test_a_long_text_is_read_around_the_word_within_max_length(bert: Any) -> None:
    text = " ".join(f"river{'' if number % 2 else ' city'}" for number in range(60))
    forwarded: list[list[int]] = []
    handle = bert[0].register_forward_pre_hook(
        lambda _m, _a, given: forwarded.extend(given["input_ids"].tolist()), with_kwargs=True
    )
    (slots,) = filled(bert, [text], max_length=23, batch_tokens=23)
    handle.remove()
    assert len(slots) == 90  # every word, not only those at the beginning
    assert all(len(row) <= 23 for row in forwarded)
    river, city = bert[1].convert_tokens_to_ids(["river", "city"])
    mask, first, last = bert[1].mask_token_id, bert[1].cls_token_id, bert[1].sep_token_id
    tokens = [city if word == "city" else river for word in text.split()]
    window = slice(40, 50)  # word 45 in the middle of ten
    expected = [first, *tokens[40:45], mask, *tokens[46:50], last, *tokens[window], last]
    assert expected in forwarded


@pytest.mark.parametrize("place", [0, 1, 5, 88, 89])
def test_a_window_at_either_end_of_a_text_contains_the_word(bert: Any, place: int) -> None:
    text = " ".join(["river"] * place + ["city"] + ["river"] * (89 - place))
    slots = filled(bert, [text], max_length=23)[0]
    assert [text[slot.start : slot.stop] for slot in slots].index("city") == place


def test_roberta_s_positions_start_after_the_padding_token(byte_bpe: Any, bert: Any) -> None:
    assert longest_input(*byte_bpe) == 130 - byte_bpe[1].pad_token_id - 1
    assert longest_input(*bert) == 64
    long = " ".join(["river street"] * 60)
    assert len(filled(byte_bpe, [long], max_length=512)[0]) == 120  # would be out of range two positions later


# ---- replaceable words ----


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("What is the capital of France ?", ["capital", "France"]),
        ("I don't know the 4th one", ["know"]),
        ("I do n't know John 's dog", ["know", "John", "dog"]),
        ("a 'quoted' word, well-known", ["quoted", "word", "well", "known"]),
        ("a B2B x_y snake", ["snake"]),
        ("Wie heißt das Mädchen", ["Wie", "heißt", "das", "Mädchen"]),
        ("क्या नमस्ते", []),  # vowel signs are not letters: a word would be split in two
        ("... 12 ?", []),
    ],
)
def test_words_of_letters_that_are_not_stop_words_may_be_replaced(text: str, words: list[str]) -> None:
    assert [text[start:stop] for start, stop in replaceable(text, STOP_WORDS)] == words


def test_without_stop_words_every_word_may_be_replaced() -> None:
    assert list(replaceable("What is it", ())) == [(0, 4), (5, 7), (8, 10)]


@pytest.mark.parametrize(
    ("word", "like", "expected"),
    [
        ("city", "River", "City"),
        ("city", "river", "city"),
        ("city", "NASA", "CITY"),
        ("Paris", "river", "Paris"),
        ("city", "I", "City"),
        ("city", "iPod", "city"),
    ],
)
def test_a_word_is_cased_like_the_one_it_replaces(word: str, like: str, expected: str) -> None:
    assert cased(word, like) == expected


def test_cased_words_come_out_in_the_candidates(bert: Any) -> None:
    slots = filled(bert, ["WHO is the NASA Director ?"])[0]
    assert [len(slot.words) for slot in slots] == [5, 5]
    assert all(word.isupper() for word in slots[0].words)
    assert all(word[0].isupper() and word[1:].islower() for word in slots[1].words if word.isascii() and word[1:])


# ---- draws ----


SLOTS = [
    Slot(0, 3, ("red", "blue"), np.array([0.5, 0.25], dtype=np.float32)),
    Slot(4, 7, ("x", "y", "z", "w"), np.array([0.5, 0.125, 0.1, 0.1], dtype=np.float32)),
]


def test_each_word_is_replaced_with_the_probability_and_uniformly() -> None:
    rng = np.random.default_rng(0)
    draws = [replace_words("old cat sat", SLOTS, 0.4, rng)[0].split() for _ in range(4000)]
    first, second = (np.array([draw[word] for draw in draws]) for word in (0, 1))
    assert np.mean(first != "old") == pytest.approx(0.4, abs=0.03)  # 4 standard deviations
    assert np.mean((first != "old") & (second != "cat")) == pytest.approx(0.16, abs=0.025)  # independent
    assert np.mean(first[first != "old"] == "red") == pytest.approx(0.5, abs=0.05)
    shares = [np.mean(second[second != "cat"] == word) for word in "xyzw"]
    assert shares == pytest.approx([0.25] * 4, abs=0.045)
    assert {draw[2] for draw in draws} == {"sat"}


def test_the_cost_of_a_draw_is_the_improbability_of_its_words() -> None:
    text, cost = replace_words("old cat sat", SLOTS, 1.0, np.random.default_rng(0))
    first, second = text.split()[:2]
    probabilities = dict(zip("xyzw", SLOTS[1].probabilities.tolist(), strict=True)) | {"red": 0.5, "blue": 0.25}
    assert cost == pytest.approx(2 - probabilities[first] - probabilities[second])
    assert replace_words("old cat sat", SLOTS, 1e-9, np.random.default_rng(0)) == ("old cat sat", 0.0)


def test_a_candidate_s_score_is_the_mean_probability_of_its_words_with_1_for_those_kept(bert: Any) -> None:
    text = "The famous city by the river"
    (slots,) = filled(bert, [text], top_k=15)
    probabilities = [dict(zip(slot.words, slot.probabilities.tolist(), strict=True)) for slot in slots]
    assert len(slots) == 3
    (pool,) = substituted(bert, text, n=12).candidates
    assert pool
    for candidate in pool:
        words = candidate.text.split()
        inserted = [known.get(words[place], 1.0) for known, place in zip(probabilities, (1, 2, 5), strict=True)]
        assert candidate.score == pytest.approx((3 + sum(inserted)) / 6, abs=1e-6)


def test_candidates_differ_from_one_another_and_from_the_original(bert: Any) -> None:
    result = substituted(bert, *TEXTS, n=40)
    for text, pool in zip(TEXTS, result.candidates, strict=True):
        texts = [candidate.text for candidate in pool]
        assert 1 < len(texts) == len(set(texts)) <= 40
        assert text not in texts
        assert len({candidate.id for candidate in pool}) == len(pool)
        assert {(c.source, c.text_pair) for c in pool} == {("substitution", None)}
    assert [c.owner for c in result.candidates[2]] == ["e2"] * len(result.candidates[2])
    assert len(result.candidates[1]) < 40
    assert result.short == sum(len(pool) < 40 for pool in result.candidates)
    (slots,), rng = filled(bert, TEXTS[:1]), np.random.default_rng(0)
    raw = [replace_words(TEXTS[0], slots, 0.4, rng)[0] for _ in range(40)]
    assert TEXTS[0] in raw  # the draws alone repeat the original and one another
    assert len(set(raw)) < 40


def test_everything_but_the_words_stays_as_it_was(bert: Any) -> None:
    (pool,) = substituted(bert, "  Odd   spacing,and (marks) — stay!  ", n=6, probability=1.0).candidates
    assert pool
    for candidate in pool:
        assert WORD.sub("w", candidate.text) == "  w   w,w (w) — w!  "
        assert candidate.text[15:18] == "and" or "and" in candidate.text


def test_more_draws_start_with_the_same_ones(bert: Any) -> None:
    few, many = substituted(bert, TEXTS[4], n=4), substituted(bert, TEXTS[4], n=9)
    assert many.candidates[0][: len(few.candidates[0])] == few.candidates[0]


def test_an_example_s_candidates_do_not_depend_on_the_others_or_on_batches(bert: Any) -> None:
    together = substituted(bert, *TEXTS, batch_tokens=4096).candidates
    alone = [
        substitute([Example(f"e{number}", text)], *bert, seed=0, max_length=64, batch_tokens=1).candidates[0]
        for number, text in enumerate(TEXTS)
    ]
    for pool, other in zip(together, alone, strict=True):
        assert [dataclasses.replace(c, score=0) for c in pool] == [dataclasses.replace(c, score=0) for c in other]
        assert [c.score for c in pool] == pytest.approx([c.score for c in other], abs=1e-5)


def test_the_same_seed_repeats_every_byte_and_another_seed_or_id_does_not(bert: Any) -> None:
    assert substituted(bert, *TEXTS) == substituted(bert, *TEXTS)
    assert substituted(bert, *TEXTS).candidates != substituted(bert, *TEXTS, seed=1).candidates
    twice = substituted(bert, TEXTS[4], TEXTS[4]).candidates
    assert [c.text for c in twice[0]] != [c.text for c in twice[1]]
    assert rng_of_example(0, "a").random() != rng_of_example(0, "b").random() != rng_of_example(1, "b").random()


# ---- pairs ----


def replaced_sides(pool: Sequence[Candidate], first: str, second: str) -> set[tuple[bool, bool]]:
    return {(candidate.text != first, candidate.text_pair != second) for candidate in pool}


def test_of_a_pair_one_side_is_replaced_and_the_other_is_the_original(bert: Any) -> None:
    pool = substituted(bert, (TEXTS[0], TEXTS[4]), n=12).candidates[0]
    assert replaced_sides(pool, TEXTS[0], TEXTS[4]) == {(True, False), (False, True)}
    assert {candidate.id.split("-")[1] for candidate in pool if candidate.text != TEXTS[0]} == {"text"}
    assert sum(candidate.text_pair != TEXTS[4] for candidate in pool) <= 6


def test_of_a_pair_both_sides_may_be_replaced_at_once(bert: Any) -> None:
    pool = substituted(bert, (TEXTS[0], TEXTS[4]), n=12, pairs="both").candidates[0]
    assert (True, True) in replaced_sides(pool, TEXTS[0], TEXTS[4])


# ---- rows, progress, resuming ----


def test_one_row_is_forwarded_for_each_word_of_each_distinct_text(bert: Any) -> None:
    seen: list[int] = []
    handle = bert[0].register_forward_pre_hook(
        lambda _m, _a, given: seen.append(len(given["input_ids"])), with_kwargs=True
    )
    result = substituted(bert, *TEXTS, (TEXTS[0], TEXTS[1]), TEXTS[1])
    handle.remove()
    words = sum(len(list(replaceable(text, STOP_WORDS))) for text in TEXTS)
    assert result.rows == sum(seen) == words
    assert len(seen) < words  # in batches


def test_no_gradient_is_kept_and_the_mode_is_restored(bert: Any) -> None:
    bert[0].train()
    grad: list[bool] = []
    handle = bert[0].register_forward_hook(lambda _m, _a, output: grad.append(output.logits.requires_grad))
    substituted(bert, TEXTS[0])
    handle.remove()
    assert bert[0].training
    bert[0].eval()
    assert grad
    assert not any(grad)
    assert all(parameter.grad is None for parameter in bert[0].parameters())


def test_progress_counts_texts(bert: Any) -> None:
    reports: list[tuple[int, int | None]] = []
    substituted(bert, *TEXTS, progress=lambda done, total: reports.append((done, total)))
    assert reports[-1] == (len(TEXTS), len(TEXTS))


def test_an_interrupted_call_resumes_from_its_finished_blocks(
    bert: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("augkd.candidates.substitution.masked_words._BLOCK", 2)
    texts = [*TEXTS, "of the", "a second text about nothing", "one more"]
    whole = substituted(bert, *texts)

    def stop(done: int, _: int | None) -> None:
        if done >= 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        substituted(bert, *texts, saved=tmp_path, progress=stop)
    assert len(list(tmp_path.glob("*.parquet"))) == 2, (
        "the block that was finished when the call was interrupted is there too"
    )
    rows: list[int] = []
    monkeypatch.setattr(bert[0], "forward", counting(bert[0].forward, rows))
    again = substituted(bert, *texts, saved=tmp_path)
    assert (again.candidates, again.rows, again.short) == (whole.candidates, whole.rows, whole.short)
    assert 0 < sum(rows) < whole.rows
    rows.clear()
    assert substituted(bert, *texts, saved=tmp_path).candidates == whole.candidates
    assert rows == []


def counting(forward: Any, rows: list[int]) -> Any:
    def count_and_forward(*args: Any, **kwargs: Any) -> Any:
        rows.append(len(kwargs["input_ids"]))
        return forward(*args, **kwargs)

    return count_and_forward


@pytest.mark.parametrize("change", ["option", "text", "damage"])
def test_blocks_of_other_texts_or_options_and_damaged_ones_are_filled_again(
    bert: Any, tmp_path: Path, change: str
) -> None:
    texts, options = list(TEXTS), {"top_k": 15}
    substituted(bert, *texts, saved=tmp_path)
    if change == "option":
        options = {"top_k": 3}
    elif change == "text":
        texts[0] += " again"
    else:
        (block,) = tmp_path.glob("*.parquet")
        content = bytearray(block.read_bytes())
        content[len(content) // 2] ^= 1
        block.write_bytes(content)
    assert (
        substituted(bert, *texts, saved=tmp_path, **options).candidates
        == substituted(bert, *texts, **options).candidates
    )


def test_a_text_without_a_word_to_replace_has_no_candidates(bert: Any) -> None:
    result = substituted(bert, "What is it ?", "1 + 1", "")
    assert result.candidates == [[], [], []]
    assert (result.rows, result.short) == (0, 3)
    assert substitute([], *bert, seed=0).candidates == []


# ---- mistakes ----


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n": 0}, "substitution n is 0; give at least 1"),
        ({"top_k": 0}, "substitution top_k is 0"),
        ({"probability": 0.0}, "substitution probability is 0.0"),
        ({"probability": 1.5}, "substitution probability is 1.5"),
        ({"pairs": "eech"}, "substitution pairs is 'eech'; did you mean 'each'?"),
        ({"max_length": 5}, "substitution max_length is 5; the text must fit in it twice"),
        ({"batch_tokens": 0}, "substitution batch_tokens is 0"),
    ],
)
def test_an_option_out_of_range_is_refused_in_one_line(bert: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message.replace("?", r"\?")) as raised:
        substituted(bert, TEXTS[0], **options)
    assert "\n" not in str(raised.value)


def test_a_model_without_a_head_or_of_another_vocabulary_is_refused(bert: Any, tiny_bert: Path) -> None:
    with pytest.raises(ModelError, match="has no masked-LM head; load it with AutoModelForMaskedLM"):
        substituted((AutoModel.from_pretrained(tiny_bert), bert[1]), TEXTS[0])
    with pytest.raises(ModelError, match=r"the tokenizer of .* has 30522 pieces, the model"):
        substituted((bert[0], AutoTokenizer.from_pretrained(tiny_bert)), TEXTS[0])


def test_a_tokenizer_without_a_mask_is_refused(byte_bpe: Any) -> None:
    bare = byte_level()
    bare.mask_token = None
    with pytest.raises(ModelError, match="has no mask token"):
        substituted((byte_bpe[0], bare), TEXTS[0])
