"""Checkpoints of the mini model in the official format: export, import, agreement with the engine."""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dsv4agent.engine.config import ModelConfig
from dsv4agent.engine.weights import Checkpoint, save_checkpoint
from examples.train_mini.architecture import MiniConfig
from examples.train_mini.model import MiniModel
from examples.train_mini.official_names import load_stored, stored_tensors
from examples.train_mini.tensors import integers

SIZE_LIMIT = 24_000_000
"""Bytes a bundled model may take in all."""
TOKENIZER = Path(__file__).parents[2] / "dsv4agent" / "assets" / "mini" / "tokenizer.json"
CONTROL_NAMES = {
    "bos_token": "<｜begin▁of▁sentence｜>",
    "eos_token": "<｜end▁of▁sentence｜>",
    "pad_token": "<｜▁pad▁｜>",
}


class ExportMismatch(AssertionError):
    """The exported checkpoint is too large, or the engine's logits differ from the trained model's."""


@dataclass(frozen=True)
class ExportReport:
    """What was written: bytes in all, and the difference of logits from the engine's, None if unchecked."""

    folder: Path
    size: int
    difference: float | None


def export(
    model: MiniModel,
    masters: Mapping[str, Tensor],
    folder: Path,
    *,
    tokenizer: Path = TOKENIZER,
    card: Mapping[str, Any] | None = None,
    check: bool = True,
) -> ExportReport:
    """Write `masters` (fp32 by parameter name) with the model's routing buffers as an official checkpoint.

    Raises `ExportMismatch` if the folder is larger than a bundled model may be or, with `check`, if the
    engine computes other logits from it than this package's model in fp32 (1e-3).
    """
    folder.mkdir(parents=True, exist_ok=True)
    official = model.config.to_official()
    save_checkpoint(folder, _weights(model, masters), official)
    shutil.copyfile(tokenizer, folder / "tokenizer.json")
    _write_json(folder / "tokenizer_config.json", _tokenizer_config(model.config))
    _write_json(
        folder / "generation_config.json",
        {"do_sample": True, "temperature": 1.0, "top_p": 1.0, "bos_token_id": 0, "eos_token_id": 1},
    )
    (folder / "README.md").write_text(model_card(model, card or {}), encoding="utf-8")
    size = sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
    if size > SIZE_LIMIT:
        raise ExportMismatch(f"{folder} takes {size:,} bytes, more than {SIZE_LIMIT:,}; shrink the model.")
    difference = engine_difference(folder) if check else None
    if difference is not None and not difference <= 1e-3:
        raise ExportMismatch(
            f"The engine's logits differ by {difference:.2e} from the model's; compare the layers."
        )
    return ExportReport(folder, size, difference)


def load_model(
    folder: Path, *, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> MiniModel:
    """Read an official checkpoint of any size into a model with dequantised weights, in evaluation mode.

    In bf16 the parameters that training keeps in fp32 stay in fp32.
    """
    official = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config = ModelConfig.from_file(folder)
    model = MiniModel(MiniConfig.from_official(official))
    load_stored(model, Checkpoint(folder, config).tensor)
    model.to(device)
    if dtype is not torch.float32:
        cast_compute_weights(model, dtype)
    return model.eval()


def cast_compute_weights(model: MiniModel, dtype: torch.dtype) -> None:
    """Turn the matrices of a model into `dtype`, as training does; small parameters stay in fp32."""
    for name, parameter in model.named_parameters():
        small = parameter.dim() < 2 or "hc" in name or name == "embed" or name.endswith((".gate", ".ape"))
        if not small:
            parameter.data = parameter.data.to(dtype)


@torch.no_grad()
def engine_difference(folder: Path, tokens: int = 300) -> float:
    """Return the largest difference of fp32 logits between the engine and this package on random tokens."""
    from dsv4agent.engine.engine import Engine

    model = load_model(folder)
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(3, model.config.vocab_size, (tokens,), generator=generator)
    row = torch.zeros(1, -(-tokens // 128) * 128, dtype=torch.int64)
    row[0, :tokens] = ids
    mine = model.logits(model(row, torch.zeros_like(row)).hidden)[0, :tokens]
    with Engine.load(folder, device="cpu", precision="fp32") as engine:
        theirs = engine.logits(integers(ids))
    return float((mine - theirs.float().cpu()).abs().max())


def training_noted(folder: Path) -> str:
    """Return what a checkpoint's README says of its training, empty if it says nothing."""
    readme = folder / "README.md"
    lines = readme.read_text(encoding="utf-8").splitlines() if readme.exists() else []
    start = "| training | "
    return next((line[len(start) :].removesuffix(" |") for line in lines if line.startswith(start)), "")


def model_card(model: MiniModel, card: Mapping[str, Any]) -> str:
    """Return the README of a checkpoint; `card` adds measured facts, one line each."""
    parameters = sum(parameter.numel() for parameter in model.parameters())
    c = model.config
    facts = "".join(f"| {name} | {value} |\n" for name, value in card.items())
    return f"""# dsv4agent mini

A model of the DeepSeek-V4 architecture with {parameters / 1e6:.1f} M parameters, trained from random
weights to repair one-line bugs in small git repositories with the two tools of dsv4agent's minimal profile.
It shows that the runtime, the encoder and the engine work together, offline and on a CPU. It is not a general
model: it knows no language beyond its task.

| | |
|---|---|
| layers | {len(c.ratios)}, compression ratios {list(c.ratios)} |
| hidden size, heads | {c.hidden}, {c.heads} x {c.head_dim} |
| experts | {c.experts} routed, {c.active_experts} active, 1 shared, width {c.width} |
| window, indexer top-k | {c.window}, {c.index_topk} |
| vocabulary | {c.vocab_size} |
| context | {c.max_positions} |
| storage | FP4 experts, FP8 projections, BF16 and F32 rest, the official format |
{facts}
Trained on generated repositories and on functions of the Python installation it was trained with; the recipe
is `examples/train_mini`. License: MIT.
"""


def _weights(model: MiniModel, masters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    snapshot = MiniModel(model.config)
    state = {
        name: buffer.detach().cpu() for name, buffer in model.named_buffers() if name in snapshot.state_dict()
    }
    state |= {name: master.detach().float().cpu() for name, master in masters.items()}
    snapshot.load_state_dict(state)
    return {tensor.key: tensor.value for tensor in stored_tensors(snapshot)}


def _tokenizer_config(config: MiniConfig) -> dict[str, Any]:
    return {
        **CONTROL_NAMES,
        "add_bos_token": False,
        "add_eos_token": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": config.max_positions,
        "tokenizer_class": "PreTrainedTokenizerFast",
    }


def _write_json(path: Path, data: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def main() -> None:
    """Export a training checkpoint, or check an exported folder."""
    parser = argparse.ArgumentParser(description="Export a training checkpoint in the official format.")
    parser.add_argument(
        "checkpoint", type=Path, help="checkpoint.pt of a training, or an exported folder to check"
    )
    parser.add_argument("--out", type=Path)
    parser.add_argument("--tokenizer", type=Path, default=TOKENIZER)
    arguments = parser.parse_args()
    if arguments.checkpoint.is_dir():
        print(
            f"{arguments.checkpoint}: largest difference of logits "
            f"{engine_difference(arguments.checkpoint):.2e}"
        )
        return
    if arguments.out is None:
        parser.error("--out is needed to export a training checkpoint")
    state = torch.load(arguments.checkpoint, map_location="cpu", weights_only=True)
    model = MiniModel(MiniConfig.from_official(state["config"]))
    model.load_state_dict(state["buffers"], strict=False)
    report = export(model, state["optimizer"]["master"], arguments.out, tokenizer=arguments.tokenizer)
    print(f"{report.folder}: {report.size:,} bytes, largest difference of logits {report.difference:.2e}")


if __name__ == "__main__":
    main()
