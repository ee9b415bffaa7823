"""A checkpoint folder as one file that llama.cpp runs."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
from gguf import GGMLQuantizationType as Type
from gguf import GGUFReader, GGUFWriter, LlamaFileType
from gguf.constants import GGML_QUANT_VERSION
from gguf.quants import dequantize, quant_shape_to_byte_shape, quantize

from awqbench.errors import UserError, unknown_choice
from awqbench.formats.gguf.architecture import Architecture
from awqbench.formats.gguf.blocks import BLOCK, block_type, pack_blocks
from awqbench.formats.gguf.native import NATIVE, quantize_file, quantizer
from awqbench.formats.gguf.source import Source
from awqbench.formats.gguf.tokenizer import write_tokenizer

Kind = Literal["blocks", "f16", "f32", "q8_0"]
# What matrices become; what "blocks" leaves over is as with "f16".
_MATRICES = {"blocks": Type.F16, "f16": Type.F16, "f32": Type.F32, "q8_0": Type.Q8_0}
_FILE_TYPES = {
    Type.F32: LlamaFileType.ALL_F32,
    Type.Q4_0: LlamaFileType.MOSTLY_Q4_0,
    Type.Q4_1: LlamaFileType.MOSTLY_Q4_1,
    Type.Q8_0: LlamaFileType.MOSTLY_Q8_0,
    Type.F16: LlamaFileType.MOSTLY_F16,
}
_HALF_MAX = float(np.finfo(np.float16).max)
# Computed by every engine from the configuration; older tools stored them.
_COMPUTED = "rotary_emb.inv_freq"


@dataclass(frozen=True, slots=True)
class _Planned:
    """One tensor of the file; `source` names a quantized linear or a tensor of the checkpoint, `dense` says that its
    values are stored rather than its codes."""

    target: str
    source: str
    type: Type
    shape: tuple[int, ...]
    quantized: bool = False
    dense: bool = True

    @property
    def byte_shape(self) -> tuple[int, ...]:
        """The shape of its data as bytes."""
        return tuple(quant_shape_to_byte_shape(self.shape, self.type))


def export_gguf(
    checkpoint: Path, out: Path, *, kind: Kind = "blocks", pre: str | None = None, name: str | None = None
) -> dict[str, Any]:
    """Write `checkpoint`, an AutoAWQ, compressed-tensors or unquantized folder, as the GGUF file `out`.

    With `kind` "blocks" integer codes carry over into Q4_0, Q4_1 or Q8_0 blocks as they are; linears whose codes fit
    no block type, and the matrices that are not quantized, become float16. With "f16", "f32" and "q8_0" every matrix is
    stored as that, quantized ones dequantized first: embedding and output layer too, as llama.cpp's own converter has
    them, and rows that 32 does not divide as float16 instead of Q8_0. Vectors are float32 always. `pre` overrides
    llama.cpp's name for how the tokenizer splits text. Linears are read one at a time, and `out` appears when it is
    complete. The kinds of `NATIVE` are made from a float32 file by llama.cpp's own quantizer, where llama-cpp-python is
    installed.

    Returns `types` (how many tensors of each), `bytes`, `rounding` (relative root mean square error that the file adds
    to the quantized weights) and `notes`. Raises UserError when `out` exists, or the architecture, tokenizer or format
    cannot be carried over, BackendUnavailable when llama.cpp's quantizer is needed and not installed.
    """
    if kind not in (*get_args(Kind), *NATIVE):
        raise unknown_choice("kind of GGUF", kind, (*get_args(Kind), *NATIVE))
    out = Path(out)
    if out.exists():
        raise UserError(f"{out} exists already: choose another --out, or remove it")
    if kind in NATIVE:
        return _export_native(checkpoint, out, kind, pre, name)
    source = Source.open(Path(checkpoint))
    architecture = Architecture.of(source.config)
    plan, notes = _plan(source, architecture, kind)
    with _complete(out) as path, closing(GGUFWriter(path, architecture.arch_name)) as writer:
        writer.add_type("model")
        writer.add_name(name or source.folder.resolve().name)
        architecture.write(writer)
        writer.add_file_type(_file_type(plan))
        writer.add_quantization_version(GGML_QUANT_VERSION)
        notes += write_tokenizer(writer, source.folder, architecture.vocabulary, pre)
        error = _write_tensors(writer, plan, source, architecture)
    types = Counter(tensor.type.name for tensor in plan)
    return {"types": dict(types), "bytes": out.stat().st_size, "rounding": error, "notes": notes}


def _export_native(checkpoint: Path, out: Path, kind: str, pre: str | None, name: str | None) -> dict[str, Any]:
    """Through a file of float32, from which llama.cpp's own quantizer starts."""
    quantizer(kind)  # before anything large is written
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as scratch:
        dense, made = Path(scratch) / "dense.gguf", Path(scratch) / "made.gguf"
        whole = Path(checkpoint).resolve().name
        notes = export_gguf(checkpoint, dense, kind="f32", pre=pre, name=name or whole)["notes"]
        quantize_file(dense, made, kind)
        types = Counter(tensor.tensor_type.name for tensor in GGUFReader(made).tensors)
        os.rename(made, out)
    return {"types": dict(types), "bytes": out.stat().st_size, "rounding": None, "notes": notes}


def _plan(source: Source, architecture: Architecture, kind: Kind) -> tuple[list[_Planned], list[str]]:
    """Every tensor of the file, and what is worth telling about them."""
    plan: list[_Planned] = []
    unfit: Counter[str] = Counter()
    for name, linear in source.linears.items():
        scheme = source.scheme(name)
        fitting = block_type(linear.shape[1], scheme) if kind == "blocks" else _dense_type(kind, linear.shape)
        if fitting is None:
            unfit[str(scheme)] += 1
        dense = kind != "blocks" or fitting is None
        chosen = Type.F16 if fitting is None else fitting  # F32 is number 0
        plan.append(_Planned(_target(architecture, f"{name}.weight"), name, chosen, linear.shape, True, dense))
    for name in source.others():
        if not name.endswith(_COMPUTED):
            shape = source.shards.entries[name].shape
            plan.append(_Planned(_target(architecture, name), name, _dense_type(kind, shape), shape))
    factors = architecture.rope_factors()
    if factors is not None:
        plan.append(_Planned("rope_freqs.weight", "", Type.F32, factors.shape))
    notes = [f"{count} linears of {scheme} fit no block type: stored as float16" for scheme, count in unfit.items()]
    if kind in ("f16", "f32") and source.linears:
        said = {"f16": "float16", "f32": "float32"}[kind]
        notes.append(f"{said} of the dequantized weights: as large as the unquantized model, as good as the quantized")
    if kind == "q8_0" and source.linears:
        notes.append("the quantized weights were rounded a second time, to 8 bits in blocks of 32")
    return sorted(plan, key=lambda tensor: tensor.target), notes


def _dense_type(kind: Kind, shape: tuple[int, ...]) -> Type:
    """What a tensor that is not carried over as codes is stored as."""
    if len(shape) < 2:
        return Type.F32
    return Type.F16 if kind == "q8_0" and shape[-1] % BLOCK else _MATRICES[kind]


def _target(architecture: Architecture, name: str) -> str:
    target = architecture.target(name)
    if target is None:
        raise UserError(f"llama.cpp's {architecture.arch_name} has no place for the tensor {name}")
    return target


def _file_type(plan: list[_Planned]) -> LlamaFileType:
    """What most weights are."""
    weights: Counter[Type] = Counter()
    for tensor in plan:
        if tensor.target.startswith("blk.") and len(tensor.shape) > 1:
            weights[tensor.type] += int(np.prod(tensor.shape))
    return _FILE_TYPES[weights.most_common(1)[0][0] if weights else Type.F16]


def _write_tensors(
    writer: GGUFWriter, plan: list[_Planned], source: Source, architecture: Architecture
) -> float | None:
    """Write header, metadata and data, one tensor at a time; the relative error of the quantized linears."""
    for tensor in plan:
        size = int(np.prod(tensor.byte_shape))
        writer.add_tensor_info(tensor.target, tensor.byte_shape, np.dtype(np.uint8), size, tensor.type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    lost = total = 0.0
    for tensor in plan:
        if tensor.quantized:
            data, wanted = _linear(tensor, source)
            lost += float(((dequantize(data, tensor.type) - wanted) ** 2).sum(dtype=np.float64))
            total += float((wanted**2).sum(dtype=np.float64))
        else:
            data = _dense(tensor, source, architecture)
        order = architecture.row_order(tensor.source.removesuffix(".weight").removesuffix(".bias"))
        writer.write_tensor_data(data if order is None else _reorder(data, order, tensor))
    return (lost / total) ** 0.5 if total else None


def _linear(tensor: _Planned, source: Source) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
    """A quantized linear's bytes [out, bytes], and the weight they stand for."""
    quantized = source.quantized(tensor.source)
    weight: npt.NDArray[np.float32] = quantized.dequantize().numpy()
    if tensor.dense:
        return _bytes(weight, tensor), weight
    try:
        return pack_blocks(quantized, tensor.type), weight
    except UserError as error:
        raise UserError(f"{source.folder}: {tensor.source}: {error}") from None


def _dense(tensor: _Planned, source: Source, architecture: Architecture) -> npt.NDArray[np.uint8]:
    factors = architecture.rope_factors() if not tensor.source else None
    return _bytes(source.tensor(tensor.source).numpy() if factors is None else factors, tensor)


def _bytes(values: npt.NDArray[np.float32], tensor: _Planned) -> npt.NDArray[np.uint8]:
    if tensor.type == Type.F16:
        if np.abs(values).max(initial=0) > _HALF_MAX:
            raise UserError(f"{tensor.source} has values beyond float16, which matrices are stored in")
        return np.ascontiguousarray(values.astype(np.float16)).view(np.uint8)
    if tensor.type == Type.Q8_0:
        rounded: npt.NDArray[np.uint8] = quantize(values, tensor.type)
        return rounded
    return np.ascontiguousarray(values).view(np.uint8)


def _reorder(data: npt.NDArray[np.uint8], order: npt.NDArray[np.int64], tensor: _Planned) -> npt.NDArray[np.uint8]:
    """Rows, or a bias's elements, in another order."""
    return np.ascontiguousarray(data.reshape(tensor.shape[0], -1)[order]).reshape(data.shape)


@contextmanager
def _complete(out: Path) -> Iterator[Path]:
    """A temporary name beside `out` that becomes `out` when all is written."""
    out.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{out.name}.", dir=out.parent)
    os.close(handle)
    try:
        yield Path(name)
        os.chmod(name, 0o644)
        os.rename(name, out)
    finally:
        Path(name).unlink(missing_ok=True)
