"""Tiny random models of many architectures, each with a tiny tokenizer of its own kind, trained on the tiny task.

`ARCHITECTURES` maps a name to a function that writes a `save_pretrained` folder. Every model has three layers of width
16 and 64 places; the kinds of tokenizer and their special tokens are those of the published models.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from support.tiny import sentences
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

PLACES = 64
SIZES = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32}
OTHER_NAMES = {
    "distilbert": {"dim": 16, "n_layers": 3, "n_heads": 2, "hidden_dim": 32, "max_position_embeddings": PLACES},
    "gpt2": {"n_embd": 16, "n_layer": 3, "n_head": 2, "n_inner": 32, "n_positions": PLACES},
    "t5": {"d_model": 16, "num_layers": 3, "num_decoder_layers": 3, "num_heads": 2, "d_ff": 32, "d_kv": 8},
}


def texts() -> list[str]:
    """The texts that tokenizers are trained on."""
    return [text for number in range(0, 50, 10) for text, _ in sentences(number)]


# ---- tokenizers ----


@functools.cache
def wordpiece(special: tuple[str, ...]) -> dict[str, int]:
    """A WordPiece vocabulary of the tiny texts, the special tokens first."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=200, special_tokens=list(special), show_progress=False)
    tokenizer.train_from_iterator(texts(), trainer)
    return dict(sorted(tokenizer.get_vocab().items(), key=lambda item: item[1]))


@functools.cache
def byte_level(special: tuple[str, ...]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """A byte-level BPE vocabulary and its merges."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=340,
        special_tokens=list(special),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts(), trainer)
    return tokenizer.get_vocab(), [tuple(merge) for merge in _model_of(tokenizer)["merges"]]


@functools.cache
def unigram(special: tuple[str, ...], unknown: str) -> list[tuple[str, float]]:
    """A Unigram vocabulary with its scores."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Replace(Regex(r"\s+"), " ")
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=150, special_tokens=list(special), unk_token=unknown, show_progress=False
    )
    tokenizer.train_from_iterator(texts(), trainer)
    return [(token, score) for token, score in _model_of(tokenizer)["vocab"]]


def _model_of(tokenizer: Tokenizer) -> dict[str, Any]:
    import json

    model: dict[str, Any] = json.loads(tokenizer.to_str())["model"]
    return model


BERT_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
ROBERTA_TOKENS = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")


def bert_tokenizer() -> Any:
    return transformers.BertTokenizer(vocab=wordpiece(BERT_TOKENS), model_max_length=PLACES)


def mpnet_tokenizer() -> Any:
    return transformers.MPNetTokenizer(vocab=wordpiece(("<s>", "<pad>", "</s>", "[UNK]", "<mask>")))


def roberta_tokenizer() -> Any:  # its files state no length
    vocab, merges = byte_level(ROBERTA_TOKENS)
    return transformers.RobertaTokenizer(vocab=vocab, merges=merges)


def xlm_roberta_tokenizer() -> Any:
    return transformers.XLMRobertaTokenizer(vocab=unigram(ROBERTA_TOKENS, "<unk>"))


def albert_tokenizer() -> Any:
    return transformers.AlbertTokenizer(vocab=unigram(("<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"), "<unk>"))


def deberta_tokenizer() -> Any:
    return transformers.DebertaV2Tokenizer(vocab=unigram(("[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"), "[UNK]"))


def t5_tokenizer() -> Any:
    return transformers.T5Tokenizer(vocab=unigram(("<pad>", "</s>", "<unk>"), "<unk>"), extra_ids=2)


def gpt2_tokenizer() -> Any:  # no padding token
    vocab, merges = byte_level(("<|endoftext|>",))
    return transformers.GPT2Tokenizer(vocab=vocab, merges=merges)


def qwen2_tokenizer() -> Any:  # as Qwen2's: it pads with the token that ends a text
    vocab, merges = byte_level(("<|endoftext|>",))
    return transformers.Qwen2Tokenizer(vocab=vocab, merges=merges)


def modernbert_tokenizer() -> Any:
    vocab, merges = byte_level(BERT_TOKENS)
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    from tokenizers.processors import TemplateProcessing

    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_input_names=["input_ids", "attention_mask"],
        model_max_length=PLACES,
        **dict(zip(names, BERT_TOKENS, strict=True)),
    )


TOKENIZERS: dict[str, Callable[[], Any]] = {
    "bert": bert_tokenizer,
    "roberta": roberta_tokenizer,
    "distilbert": bert_tokenizer,
    "electra": bert_tokenizer,
    "albert": albert_tokenizer,
    "deberta-v2": deberta_tokenizer,
    "modernbert": modernbert_tokenizer,
    "xlm-roberta": xlm_roberta_tokenizer,
    "mpnet": mpnet_tokenizer,
    "gpt2": gpt2_tokenizer,
    "qwen2": qwen2_tokenizer,
    "t5": t5_tokenizer,
}

# ---- models ----

_SETTINGS: dict[str, dict[str, Any]] = {
    "roberta": {"max_position_embeddings": PLACES + 2, "type_vocab_size": 1},  # as 514 for 512 tokens
    "electra": {"embedding_size": 16},
    "albert": {"embedding_size": 8},
    "deberta-v2": {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "type_vocab_size": 0},
    "modernbert": {"global_attn_every_n_layers": 3, "local_attention": 16},
    "xlm-roberta": {"max_position_embeddings": PLACES + 2, "type_vocab_size": 1},
    "mpnet": {"max_position_embeddings": PLACES + 2},
    "qwen2": {"num_key_value_heads": 1, "use_sliding_window": True, "sliding_window": 16, "max_window_layers": 2},
}
_ID_SETTINGS = ("pad", "bos", "eos", "cls", "sep", "mask")


def config_of(name: str, tokenizer: Any, **settings: Any) -> Any:
    """The tiny configuration of an architecture, with the special tokens of its tokenizer as published ones have."""
    sizes = OTHER_NAMES.get(name, {**SIZES, "max_position_embeddings": PLACES})
    ids = {f"{kind}_token_id": getattr(tokenizer, f"{kind}_token_id", None) for kind in _ID_SETTINGS}
    if name in ("gpt2", "qwen2"):
        ids["pad_token_id"] = None  # published decoders' configurations state none
    if name == "t5":
        ids["decoder_start_token_id"] = ids["pad_token_id"]
    return transformers.AutoConfig.for_model(
        name, **{"vocab_size": len(tokenizer), **sizes, **ids, **_SETTINGS.get(name, {}), **settings}
    )


def write_model(name: str, folder: Path, *, seed: int = 0, labels: Sequence[str] = ()) -> Path:
    """A tiny random model of an architecture with its tokenizer; with `labels`, a classifier.

    Its matrices are eight times as large as usual, so that texts differ by more than rounding.
    """
    tokenizer = TOKENIZERS[name]()
    torch.manual_seed(seed)
    names = {"id2label": dict(enumerate(labels)), "label2id": {label: place for place, label in enumerate(labels)}}
    config = config_of(name, tokenizer, **(names if labels else {}))
    auto = transformers.AutoModelForSequenceClassification if labels else transformers.AutoModel
    model = auto.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(8 if parameter.dim() == 2 else 1)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
