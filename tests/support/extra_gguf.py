"""Files beside a model, random and tiny: LoRA adapters, and a vision projector of the LLaVA kind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from gguf import GGUFWriter

Floats = npt.NDArray[np.float32]


def lora(
    path: Path, *, width: int = 64, rank: int = 4, layer: int = 0, seed: int = 1, scale: float = 1.0
) -> Path:
    """An adapter for the output projection of one layer of a `random_gguf` model."""
    rng = np.random.default_rng(seed)
    out = GGUFWriter(path, "llama")
    out.add_type("adapter")
    out.add_string("adapter.type", "lora")
    out.add_float32("adapter.lora.alpha", float(rank))
    name = f"blk.{layer}.attn_output.weight"
    out.add_tensor(f"{name}.lora_a", (rng.standard_normal((rank, width)) * scale).astype(np.float32))
    out.add_tensor(f"{name}.lora_b", (rng.standard_normal((width, rank)) * scale).astype(np.float32))
    _write(out)
    return path


def projector(path: Path, *, text_width: int = 64, width: int = 32, image: int = 28, patch: int = 14) -> Path:
    """A one-layer CLIP encoder and a two-layer projector: a picture becomes (image / patch) squared
    tokens.
    """
    rng = np.random.default_rng(2)
    out = GGUFWriter(path, "clip")
    out.add_bool("clip.has_vision_encoder", True)
    out.add_string("clip.projector_type", "mlp")
    out.add_bool("clip.use_gelu", True)
    for key, value in {
        "image_size": image,
        "patch_size": patch,
        "embedding_length": width,
        "feed_forward_length": 2 * width,
        "projection_dim": text_width,
        "block_count": 2,
        "attention.head_count": 2,
    }.items():
        out.add_uint32(f"clip.vision.{key}", value)
    out.add_float32("clip.vision.attention.layer_norm_epsilon", 1e-5)
    out.add_array("clip.vision.image_mean", [0.5, 0.5, 0.5])
    out.add_array("clip.vision.image_std", [0.5, 0.5, 0.5])

    def random(*shape: int) -> Floats:
        return (rng.standard_normal(shape) * 0.3).astype(np.float32)

    patches = (image // patch) ** 2
    out.add_tensor("v.class_embd", random(width))
    out.add_tensor("v.patch_embd.weight", random(width, 3, patch, patch))
    out.add_tensor("v.position_embd.weight", random(patches + 1, width))
    for norm in ("v.pre_ln", "v.post_ln"):
        _norm(out, norm, width)
    for layer in range(2):
        at = f"v.blk.{layer}."
        _norm(out, at + "ln1", width)
        _norm(out, at + "ln2", width)
        for part in ("attn_q", "attn_k", "attn_v", "attn_out"):
            out.add_tensor(f"{at}{part}.weight", random(width, width))
            out.add_tensor(f"{at}{part}.bias", random(width))
        out.add_tensor(at + "ffn_up.weight", random(2 * width, width))
        out.add_tensor(at + "ffn_up.bias", random(2 * width))
        out.add_tensor(at + "ffn_down.weight", random(width, 2 * width))
        out.add_tensor(at + "ffn_down.bias", random(width))
    out.add_tensor("mm.0.weight", random(text_width, width))
    out.add_tensor("mm.0.bias", random(text_width))
    out.add_tensor("mm.2.weight", random(text_width, text_width))
    out.add_tensor("mm.2.bias", random(text_width))
    _write(out)
    return path


def audio_projector(path: Path, *, text_width: int = 64, width: int = 32, stack: int = 100) -> Path:
    """A Whisper encoder of one layer and a projector: half a minute becomes 1500 / `stack` tokens."""
    rng = np.random.default_rng(4)
    mels, positions = 128, 1500
    out = GGUFWriter(path, "clip")
    out.add_bool("clip.has_audio_encoder", True)
    out.add_string("clip.projector_type", "ultravox")
    for key, value in {
        "embedding_length": width,
        "feed_forward_length": 2 * width,
        "projection_dim": text_width,
        "block_count": 1,
        "attention.head_count": 2,
        "num_mel_bins": mels,
        "projector.stack_factor": stack,
    }.items():
        out.add_uint32(f"clip.audio.{key}", value)
    out.add_float32("clip.audio.attention.layer_norm_epsilon", 1e-5)

    def random(name: str, *shape: int, scale: float = 0.3) -> None:
        out.add_tensor(name, (rng.standard_normal(shape) * scale).astype(np.float32))

    random("a.position_embd.weight", positions, width)
    random("a.conv1d.1.weight", width, mels, 3)
    random("a.conv1d.1.bias", width, 1)
    random("a.conv1d.2.weight", width, width, 3)
    random("a.conv1d.2.bias", width, 1)
    _norm(out, "a.post_ln", width)
    at = "a.blk.0."
    _norm(out, at + "ln1", width)
    _norm(out, at + "ln2", width)
    for part in ("attn_q", "attn_k", "attn_v", "attn_out"):
        random(f"{at}{part}.weight", width, width)
        if part != "attn_k":
            random(f"{at}{part}.bias", width)
    random(at + "ffn_up.weight", 2 * width, width)
    random(at + "ffn_up.bias", 2 * width)
    random(at + "ffn_down.weight", width, 2 * width)
    random(at + "ffn_down.bias", width)
    out.add_tensor("mm.a.norm_pre.weight", np.ones(width * stack, dtype=np.float32))
    random("mm.a.mlp.1.weight", 2 * width, width * stack, scale=0.1)
    out.add_tensor("mm.a.norm_mid.weight", np.ones(width, dtype=np.float32))
    random("mm.a.mlp.2.weight", text_width, width)
    _write(out)
    return path


def merging_projector(path: Path, *, text_width: int = 64, width: int = 32, patch: int = 14) -> Path:
    """An encoder like Qwen2-VL's: four patches become one token, whose position has several parts."""
    rng = np.random.default_rng(5)
    out = GGUFWriter(path, "clip")
    out.add_bool("clip.has_vision_encoder", True)
    out.add_string("clip.projector_type", "qwen2vl_merger")
    out.add_bool("clip.use_silu", False)
    out.add_bool("clip.use_gelu", True)
    for key, value in {
        "image_size": 560,
        "patch_size": patch,
        "embedding_length": width,
        "feed_forward_length": 2 * width,
        "projection_dim": text_width,
        "block_count": 1,
        "attention.head_count": 2,
    }.items():
        out.add_uint32(f"clip.vision.{key}", value)
    out.add_float32("clip.vision.attention.layer_norm_epsilon", 1e-5)
    out.add_array("clip.vision.image_mean", [0.5, 0.5, 0.5])
    out.add_array("clip.vision.image_std", [0.5, 0.5, 0.5])

    def random(name: str, *shape: int) -> None:
        out.add_tensor(name, (rng.standard_normal(shape) * 0.3).astype(np.float32))

    random("v.patch_embd.weight", width, 3, patch, patch)
    random("v.patch_embd.weight.1", width, 3, patch, patch)
    _norm(out, "v.post_ln", width)
    at = "v.blk.0."
    _norm(out, at + "ln1", width)
    _norm(out, at + "ln2", width)
    for part in ("attn_q", "attn_k", "attn_v", "attn_out"):
        random(f"{at}{part}.weight", width, width)
        random(f"{at}{part}.bias", width)
    random(at + "ffn_up.weight", 2 * width, width)
    random(at + "ffn_up.bias", 2 * width)
    random(at + "ffn_down.weight", width, 2 * width)
    random(at + "ffn_down.bias", width)
    random("mm.0.weight", 4 * width, 4 * width)
    random("mm.0.bias", 4 * width)
    random("mm.2.weight", text_width, 4 * width)
    random("mm.2.bias", text_width)
    _write(out)
    return path


def _norm(out: GGUFWriter, name: str, width: int) -> None:
    out.add_tensor(f"{name}.weight", np.ones(width, dtype=np.float32))
    out.add_tensor(f"{name}.bias", np.zeros(width, dtype=np.float32))


def _write(out: GGUFWriter) -> None:
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
