"""Named tensors in one safetensors file, written straight from where they lie.

safetensors' own writer copies every byte before the first is written, and reports a full disk in
words of its own; a checkpoint of a large model wants neither. Reading is safetensors' own.
Format: 8 bytes length of the header, the header in JSON, the tensors' bytes one after another.
"""

from __future__ import annotations

import hashlib
import json
import struct
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import IO

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from onetrunk.errors import BadInput

TYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.uint16: "U16",
    torch.uint32: "U32",
    torch.uint64: "U64",
    torch.bool: "BOOL",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.complex64: "C64",
}


def write_tensors(
    file: IO[bytes], tensors: Mapping[str, Tensor], about: Mapping[str, str] | None = None
) -> str:
    """Each tensor whole, whatever it shares memory with, from any device, in row-major order.

    `about`: texts for the header, safetensors' `__metadata__`. The SHA-256 of all that was written.
    """
    if sys.byteorder != "little":
        raise BadInput(
            "safetensors files are little-endian", got=f"a {sys.byteorder}-endian machine"
        )
    for name, tensor in tensors.items():
        if tensor.dtype not in TYPES or tensor.layout != torch.strided or name == "__metadata__":
            raise BadInput(
                f"cannot store the tensor {name}",
                got=f"{tensor.dtype}, {tensor.layout}",
                available=(str(kind) for kind in TYPES),
            )
    # widest types first: every tensor then starts at a multiple of its element's size
    order = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    header: dict[str, object] = {"__metadata__": dict(about)} if about else {}
    end = 0
    for name in order:
        tensor = tensors[name]
        begin, end = end, end + tensor.numel() * tensor.element_size()
        kind = TYPES[tensor.dtype]
        header[name] = {"dtype": kind, "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    text = struct.pack("<Q", len(text)) + text
    file.write(text)
    digest = hashlib.sha256(text)
    for name in order:
        flat = tensors[name].detach().cpu().resolve_conj().resolve_neg().contiguous().reshape(-1)
        if flat.numel():
            data = flat.view(torch.uint8).numpy().data
            file.write(data)
            digest.update(data)
    return digest.hexdigest()


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file, in memory of their own: the file may be removed at once."""
    try:
        return load(path.read_bytes())
    except SafetensorError as error:
        raise BadInput(f"{path.name} is damaged", got=str(error)[:100]) from None
