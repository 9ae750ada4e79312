"""From files to float32 tensors and back: reader, number formats, inventory, export, random checkpoints."""

from dsv4agent.engine.weights.export import save_checkpoint
from dsv4agent.engine.weights.formats import fake_fp4, fake_fp8_block, quantize_fp4, quantize_fp8_block
from dsv4agent.engine.weights.loader import Checkpoint, resident_bytes
from dsv4agent.engine.weights.synthetic import mini_config, random_weights, write_random_checkpoint

__all__ = [
    "Checkpoint",
    "fake_fp4",
    "fake_fp8_block",
    "mini_config",
    "quantize_fp4",
    "quantize_fp8_block",
    "random_weights",
    "resident_bytes",
    "save_checkpoint",
    "write_random_checkpoint",
]
