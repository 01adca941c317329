"""The weights of a run: what their file must hold before a model is built, and the model built within its bounds.

A file of weights names each tensor with its shape and dtype in a header, which is read first; the settings of the
run then may make a model of those tensors and of no others. A digest of all tensors is kept in the header. It notices
what happens by accident (a copy that ended early, a tensor that was replaced or scaled); it is no signature: whoever
means to deceive can write a new one.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as registration
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from likelify.door import broken_weights
from likelify.errors import LikelifyError, RunError, printable
from likelify.fitting.files import regular
from likelify.flows import Flow

DIGEST = "likelify.sha256"
# In bytes; a tensor takes about a hundred.
LARGEST_HEADER = 2**23
# Beside what the file holds, models have tensors that are not saved, such as indices and masks, and build others.
SPARE_BYTES, SPARE_TENSORS, TIMES = 2**26, 1000, 4
NAMED = 3
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}

Kinds = dict[str, tuple[tuple[int, ...], torch.dtype | str]]


@dataclass(frozen=True)
class Header:
    """What a file of weights holds.

    Attributes:
        kinds: for each tensor its shape and dtype, or the name of a dtype that no weights have.
        digest: of all tensors, or None.
        size: of all tensors, in bytes.
    """

    kinds: Kinds
    digest: str | None
    size: int


def pack(state: Mapping[str, Tensor]) -> bytes:
    """Return weights as the content of a safetensors file with their digest.

    Raises:
        RunError: if a weight is not a number.
    """
    from safetensors.torch import save

    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}
    if broken := [name for name, tensor in plain.items() if bool(tensor.isnan().any())]:
        raise RunError(f"The weights {listed(broken)} are not numbers (NaN), so they were not written.")
    return save(plain, metadata={DIGEST: digest_of(plain)})


def digest_of(state: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of names, dtypes, shapes and bytes of some tensors, whatever their order."""
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def read_header(file: Path) -> Header:
    """Read what a file of weights holds, without its tensors.

    Raises:
        RunError: if it is damaged or no safetensors file.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with regular(file).open("rb") as handle:
            length = int.from_bytes(handle.read(8), "little")
        if length > LARGEST_HEADER:
            raise RunError(f"'{file}' is damaged or not a safetensors file: its header would have {length} bytes.")
        with safe_open(file, framework="pt") as content:
            slices = {name: content.get_slice(name) for name in content.keys()}  # noqa: SIM118 - not a mapping
            kinds: Kinds = {name: (tuple(s.get_shape()), _dtype(s.get_dtype())) for name, s in slices.items()}
            digest = (content.metadata() or {}).get(DIGEST)
    except RunError:
        raise
    except (SafetensorError, ValueError, OverflowError) as error:
        raise RunError(f"'{file}' is damaged or not a safetensors file: {_short(error)}.") from error
    except OSError as error:
        raise RunError(f"'{file}' cannot be read: {(error.strerror or str(error)).lower()}.") from error
    return Header(kinds, digest, max(file.stat().st_size - length - 8, 0))


def _dtype(name: str) -> torch.dtype | str:
    return DTYPES.get(name, name)


def load_weights(flow: Flow, file: Path, header: Header) -> None:
    """Put the weights of a file into a model, if they are its.

    Raises:
        RunError: if tensors are missing or additional, have another shape or dtype, are not finite, or differ from
            what was written.
    """
    from safetensors.torch import load_file

    if problems := differences(flow, header):
        raise RunError(f"The weights in '{file}' do not fit the model in config.json: {'; '.join(problems)}.")
    state = load_file(file)
    if broken := broken_weights(flow, state):
        raise RunError(f"The weights {listed(broken)} in '{file}' are not finite, so no figure of them would be one.")
    check_digest(state, header, file)
    try:
        flow.load_state_dict(state)
    except (LikelifyError, RuntimeError) as error:
        raise RunError(f"The weights in '{file}' do not fit the model in config.json: {_short(error)}") from error


def check_digest(state: Mapping[str, Tensor], header: Header, file: Path) -> None:
    """Refuse tensors that are not those that were written.

    Raises:
        RunError: if their digest is another than that in the header, or there is none.
    """
    if header.digest != digest_of(state):
        found = "have no digest" if header.digest is None else "are not those that were written: their digest differs"
        raise RunError(
            f"The weights in '{file}' {found}. They were changed, or damaged on the way. Copy the run again, or fit "
            "again; if you changed them and mean it, load them into a flow, and keep that with "
            "run.save_weights(flow.state_dict())."
        )


def build_within(build: Callable[[], Flow], header: Header, folder: Path) -> Flow:
    """Build a model from settings of any origin, in memory and time that fit its file of weights.

    Raises:
        RunError: if the settings make no model, or one that is larger than the weights.
    """
    most = TIMES * header.size + SPARE_BYTES
    with _counting(TIMES * len(header.kinds) + SPARE_TENSORS, most, folder), _Bounded(most, folder):
        try:
            return build()
        except RunError:
            raise
        except (LikelifyError, RuntimeError, ValueError, TypeError, ArithmeticError, LookupError, MemoryError) as error:
            raise RunError(f"The settings in '{folder}' make no model: {_short(error)}") from error


def _too_large(folder: Path) -> RunError:
    return RunError(
        f"The settings in '{folder}' make a model that is far larger than its weights, so they do not belong together. "
        "Copy the run again, or fit again."
    )


class _Bounded(TorchDispatchMode):
    """Refuses an operation whose result would be too large, by trying it without memory first."""

    def __init__(self, most: int, folder: Path) -> None:
        super().__init__()
        self.most, self.folder = most, folder

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        changes_or_views = any(result.alias_info for result in func._schema.returns)
        if not changes_or_views and _bytes_of(func, args, kwargs) > self.most:
            raise _too_large(self.folder)
        return func(*args, **kwargs)


def _bytes_of(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
    """Return the size of what an operation returns; zero where only its values could tell."""
    like, options = tree_map_only(Tensor, lambda tensor: tensor.to("meta"), (args, kwargs))
    options |= {"device": torch.device("meta")} if "device" in options else {}
    try:
        results = tree_leaves(func(*like, **options))
    except (RuntimeError, NotImplementedError, TypeError, ValueError):
        return 0
    return sum(result.numel() * result.element_size() for result in results if isinstance(result, Tensor))


@contextmanager
def _counting(tensors: int, size: int, folder: Path) -> Iterator[None]:
    """Refuse to give modules more parameters and buffers than that, in this thread."""
    left, thread = {"tensors": tensors, "size": size}, threading.get_ident()

    def count(module: nn.Module, name: str, tensor: Tensor | None) -> None:  # noqa: ARG001 - as hooks are called
        if tensor is not None and threading.get_ident() == thread:
            left["tensors"] -= 1
            left["size"] -= tensor.numel() * tensor.element_size()
            if min(left.values()) < 0:
                raise _too_large(folder)

    hooks = (
        registration.register_module_parameter_registration_hook(count),
        registration.register_module_buffer_registration_hook(count),
    )
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def differences(flow: Flow, header: Header) -> list[str]:
    """Return in words how the tensors of a file differ from those of a model; none if they fit."""
    return mismatches({name: (tuple(t.shape), t.dtype) for name, t in flow.state_dict().items()}, header.kinds)


def mismatches(wanted: Kinds, found: Kinds) -> list[str]:
    """Return in words how the tensors that are found differ from those that are wanted; none if they are the same."""
    missing, extra = wanted.keys() - found.keys(), found.keys() - wanted.keys()
    problems = [f"{listed(sorted(missing))} missing"] if missing else []
    problems += [f"the model has no {listed(sorted(extra))}"] if extra else []
    other = [name for name in sorted(found.keys() & wanted.keys()) if found[name] != wanted[name]]
    problems += [
        f"'{printable(name[:120])}' is {_kind(found[name])}, not {_kind(wanted[name])}" for name in other[:NAMED]
    ]
    return problems + ([f"and {len(other) - NAMED} more"] if len(other) > NAMED else [])


def _kind(kind: tuple[tuple[int, ...], torch.dtype | str]) -> str:
    shape, dtype = kind
    return f"{str(dtype).removeprefix('torch.')} {'x'.join(map(str, shape)) or 'number'}"


def listed(names: list[str]) -> str:
    """Return the first of some names for an error, and how many more there are."""
    shown = ", ".join(f"'{printable(name[:120])}'" for name in names[:NAMED])
    return shown + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")


def _short(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return json.dumps(text[:300], ensure_ascii=False)[1:-1]
