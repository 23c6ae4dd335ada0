# pyright: reportUnknownMemberType=false
# tokenizers leaves out what some arguments are.
"""A model of embeddings that is small enough to be made by a test, and real.

Each meaning has a direction of its own, whatever word says it, and a text is the sum of what its
words mean. Words that are not known mean nothing.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

MEANINGS = (
    ("database", "postgres", "storage"),
    ("password", "secret", "credential"),
    ("retry", "again", "repeat"),
    ("test", "check", "verify"),
    ("log", "record", "trace"),
    ("error", "failure", "fault"),
    ("cache", "remember"),
    ("queue", "job", "worker"),
    ("index", "search", "find"),
    ("deploy", "release", "ship"),
)
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
TOKENS = "last_hidden_state"
SENTENCE = "sentence_embedding"


def make_model(
    folder: Path,
    *,
    meanings: Sequence[Sequence[str]] = MEANINGS,
    weights: str = "model.onnx",
    inputs: Sequence[str] = INPUTS,
    outputs: Sequence[str] = (TOKENS,),
    length: float = 1.0,
) -> Path:
    """Make a model in a folder, and return the folder.

    Args:
        meanings: the words it knows; those of one group mean the same.
        weights: the file, which may lie deeper.
        outputs: vectors of tokens, or of sentences, which then point the opposite way.
        length: of the vector of a word.
    """
    file = folder / weights
    file.parent.mkdir(parents=True, exist_ok=True)
    _tokenizer(meanings).save(str(folder / "tokenizer.json"))
    network = _network(_table(meanings, length), inputs, outputs)
    file.write_bytes(network.SerializeToString())
    return folder


def _tokenizer(meanings: Sequence[Sequence[str]]) -> Tokenizer:
    words = [*SPECIAL, *(word for group in meanings for word in group)]
    tokenizer = Tokenizer(
        models.WordLevel({word: at for at, word in enumerate(words)}, unk_token="[UNK]")
    )
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        special_tokens=[(name, SPECIAL.index(name)) for name in ("[CLS]", "[SEP]")],
    )
    # Published models cut and fill up as they were trained.
    tokenizer.enable_truncation(max_length=8)
    tokenizer.enable_padding(length=8)
    return tokenizer


def _network(
    table: NDArray[np.float32], inputs: Sequence[str], outputs: Sequence[str]
) -> ModelProto:
    shapes = {TOKENS: ["batch", "tokens", table.shape[1]], SENTENCE: ["batch", table.shape[1]]}
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["table", "input_ids"], [TOKENS]),
            helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
            helper.make_node("Unsqueeze", ["mask", "last"], ["weights"]),
            helper.make_node("Mul", [TOKENS, "weights"], ["weighted"]),
            helper.make_node("ReduceSum", ["weighted", "tokens"], ["sum"], keepdims=0),
            helper.make_node("Neg", ["sum"], [SENTENCE]),
        ],
        "tiny",
        [
            helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "tokens"])
            for name in inputs
        ],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shapes[name]) for name in outputs],
        [
            numpy_helper.from_array(table, "table"),
            numpy_helper.from_array(np.array([2], dtype=np.int64), "last"),
            numpy_helper.from_array(np.array([1], dtype=np.int64), "tokens"),
        ],
    )
    return helper.make_model(graph, ir_version=9, opset_imports=[helper.make_opsetid("", 17)])


def _table(meanings: Sequence[Sequence[str]], length: float) -> NDArray[np.float32]:
    """Give every word the direction of its meaning, and none to what is no word."""
    words = [word for group in meanings for word in group]
    table = np.zeros((len(SPECIAL) + len(words), len(meanings)), dtype=np.float32)
    for at, group in enumerate(meanings):
        for word in group:
            table[len(SPECIAL) + words.index(word), at] = length
    # Padding that is not masked would be seen at once.
    table[SPECIAL.index("[PAD]")] = 9
    return table
