"""Another device on a machine that has none: tensors that say they are elsewhere, and hold data of the CPU.

An operation that mixes devices raises, as on a GPU. What runs on it is placed right on any device; how fast
it is, and how it rounds, only a real one tells. A process that uses it has it for good, so the tests here run
others.
"""

from contextlib import nullcontext

import torch
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

NAME = "elsewhere"
_LIBRARY = torch.library.Library("aten", "IMPL")


def register() -> None:
    """Make the name known, once."""

    class Module(backend_registration._DummyBackendModule):
        def get_amp_supported_dtype(self):
            return [torch.bfloat16, torch.float16]

    backend_registration._setup_privateuseone_for_python_backend(NAME, Module())
    for name in ("empty_strided", "empty.memory_format"):  # which indices given as lists are made by
        _LIBRARY.impl(name, _made_by(name), "PrivateUse1")
    _LIBRARY.impl("_copy_from", _copied, "PrivateUse1")
    torch.__future__.set_overwrite_module_params_on_conversion(True)  # their data are in ``here``


def _inference(mode):
    """Context in which what is made is, or is none, of inference mode, whatever that is."""
    return nullcontext() if torch.is_inference_mode_enabled() == mode else torch.inference_mode(mode)


def _copied(source, target, non_blocking=False):
    _here(target).copy_(_here(source))
    return target


def _made_by(name):
    packet, _, overload = name.partition(".")
    func = getattr(getattr(torch.ops.aten, packet), overload or "default")
    return lambda *args, **kwargs: There(func(*args, **{**kwargs, "device": torch.device("cpu")}))


class There(torch.Tensor):
    """A tensor that is there."""

    @staticmethod
    def __new__(cls, here):
        with _inference(here.is_inference()):
            return torch.Tensor._make_wrapper_subclass(
                cls, here.shape, strides=here.stride(), storage_offset=here.storage_offset(),
                dtype=here.dtype, layout=here.layout, device=torch.device(NAME, 0),
                requires_grad=here.requires_grad,
            )  # fmt: skip

    def __init__(self, here):
        self.here = here

    def tolist(self):
        """Values, which are copied."""
        return self.here.tolist()

    def numpy(self, *args, **kwargs):
        """NumPy knows of no other devices."""
        raise TypeError(f"can't convert {NAME}:0 device type tensor to numpy. Use Tensor.cpu() first")

    def __reduce_ex__(self, protocol):
        """Files hold data, and are read on the CPU first."""
        return self.here.__reduce_ex__(protocol)

    def __repr__(self, **kwargs):
        return f"There({self.here!r})"

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return run(func, args, kwargs or {})


class Elsewhere(TorchDispatchMode):
    """Context in which tensors are made there when they are asked to be."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return run(func, args, kwargs or {})


def run(func, args, kwargs):
    """An operation on tensors of one place, or a copy between two."""
    tensors = [t for t in tree_flatten((args, kwargs))[0] if isinstance(t, torch.Tensor)]
    there = [t for t in tensors if isinstance(t, There)]
    name, asked = str(func), _asked(func, args, kwargs)
    converts = name.startswith(("aten._to_copy", "aten.to."))
    copies = converts or name.startswith("aten.copy_")
    if there and not copies:
        _check_one_place(name, tensors)
    found = func(*tree_map(_here, args), **tree_map(_here, kwargs))
    if name.startswith("aten.copy_"):
        return args[0]
    placed = bool(there) if asked is None else torch.device(asked).type == NAME
    if not placed:
        return found.clone() if converts and isinstance(args[0], There) and found is args[0].here else found
    known = {id(t.here): t for t in there}  # of operations in place

    def put(value):
        if not isinstance(value, torch.Tensor):
            return value
        return known[id(value)] if id(value) in known else There(value)

    return tree_map(put, found)


def _asked(func, args, kwargs):
    """The device that an operation is told to give its result on; None where it is not."""
    if func is torch.ops.aten.to.other:  # inference mode leaves those of several steps whole
        return args[1].device
    return kwargs.get("device", next((value for value in args if isinstance(value, torch.device)), None))


def _here(value):
    if isinstance(value, There):
        return value.here
    if isinstance(value, torch.device) and value.type == NAME:
        return torch.device("cpu")
    return value


def _check_one_place(name, tensors):
    """Numbers, and indices on the CPU, go with tensors anywhere."""
    for t in tensors:
        plain = not isinstance(t, There) and t.dim() > 0
        if plain and not ("index" in name and t.dtype in (torch.int64, torch.bool)):
            shapes = [tuple(t.shape) for t in tensors]
            raise RuntimeError(f"Expected all tensors to be on the same device: {name} {shapes}")
