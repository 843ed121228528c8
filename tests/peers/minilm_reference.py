"""all-MiniLM-L6-v2 as its publishers define it: their tokenizer, and the forward pass in numpy.

Runs where the clients are installed. Arguments: the model's folder, the most tokens an input may have.
Reads texts as a JSON list on stdin; writes token counts and vectors, not normalised, as JSON.
"""

import json
import sys
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

folder, longest = Path(sys.argv[1]), int(sys.argv[2])
config = json.loads((folder / "config.json").read_text())
raw = (folder / "model.safetensors").read_bytes()
size = int.from_bytes(raw[:8], "little")
entries = json.loads(raw[8 : 8 + size])


def tensor(name):
    entry = entries[name]
    start, end = (8 + size + offset for offset in entry["data_offsets"])
    return np.frombuffer(raw[start:end], "<f4").reshape(entry["shape"]).astype(np.float64)


def erf(x):
    """Abramowitz and Stegun 7.1.26: wrong by less than 2e-7."""
    t = 1 / (1 + 0.3275911 * np.abs(x))
    series = 0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429)))
    return np.sign(x) * (1 - t * series * np.exp(-x * x))


def linear(x, name):
    return x @ tensor(f"{name}.weight").T + tensor(f"{name}.bias")


def norm(x, name):
    centred = x - x.mean(-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + config["layer_norm_eps"])
    return scaled * tensor(f"{name}.weight") + tensor(f"{name}.bias")


def attention(x, at):
    heads = config["num_attention_heads"]
    count, width = x.shape

    def split(name):
        return linear(x, f"{at}.self.{name}").reshape(count, heads, width // heads).transpose(1, 0, 2)

    query, key, value = split("query"), split("key"), split("value")
    scores = query @ key.transpose(0, 2, 1) / np.sqrt(width // heads)
    scores = np.exp(scores - scores.max(-1, keepdims=True))
    mixed = (scores / scores.sum(-1, keepdims=True)) @ value
    return linear(mixed.transpose(1, 0, 2).reshape(count, width), f"{at}.output.dense")


def embed(ids):
    x = tensor("embeddings.word_embeddings.weight")[ids]
    x = x + tensor("embeddings.position_embeddings.weight")[: len(ids)]
    x = norm(x + tensor("embeddings.token_type_embeddings.weight")[0], "embeddings.LayerNorm")
    for layer in range(config["num_hidden_layers"]):
        at = f"encoder.layer.{layer}"
        x = norm(x + attention(x, f"{at}.attention"), f"{at}.attention.output.LayerNorm")
        inner = linear(x, f"{at}.intermediate.dense")
        inner = inner * (1 + erf(inner / np.sqrt(2))) / 2
        x = norm(x + linear(inner, f"{at}.output.dense"), f"{at}.output.LayerNorm")
    return x.mean(0)


tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
tokenizer.no_padding()
tokenizer.enable_truncation(longest)
answers = []
for text in json.load(sys.stdin):
    ids = tokenizer.encode(text).ids
    answers.append({"tokens": ids, "vector": embed(ids).tolist()})
json.dump(answers, sys.stdout)
