"""A CUDA device for tests where there is none: it computes on the CPU, and is as strict as CUDA.

A tensor on it says that it is on ``cuda:0`` and holds one of the CPU. Tensors here and there do not
mix; what makes the host wait for a device (reading a number, a result whose shape depends on
values, a copy from or to the host) is known by torch's own tags, and fails where waiting is
forbidden. A graph is recorded operation by operation, and replayed on the memory it was recorded
on, so that a number of the host which a step reads stays what it was, as in CUDA's graphs.

Torch's own C++ takes such a tensor to be on the CPU. Where it would go another way on CUDA, that
way is not taken here; no kernel of CUDA is run, but those in Triton can be by its interpreter.
"""

import contextlib

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_flatten, tree_map_only

from pyg_lth import kernels
from pyg_lth.training import cuda_graphs

CUDA = torch.device("cuda:0")

# What reads values of a tensor on the host: no result of fixed shape without waiting for them.
WAITS = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}

# These wait if their arguments are of some kind, and the tags do not tell.
LENGTH_UNLESS_TOLD = torch.ops.aten.repeat_interleave.Tensor
COPY = torch.ops.aten.copy_.default
BY_INDEX = {
    torch.ops.aten.index.Tensor,
    torch.ops.aten.index_put.default,
    torch.ops.aten.index_put_.default,
}

# Of the device, in bytes.
MEMORY = 1 << 40

# These start no kernel.
NO_KERNELS = ("empty", "new_empty", "empty_like", "empty_strided", "new_empty_strided")


class Wait(RuntimeError):
    """The host waited for the device where it must not."""


class Mixed(RuntimeError):
    """Tensors of host and device met in one operation."""


class OnCuda(Tensor):
    """A tensor that says it is on CUDA; ``held`` is where it really is."""

    @staticmethod
    def __new__(cls, held):
        told = {"dtype": held.dtype, "layout": held.layout, "requires_grad": held.requires_grad}
        if held.layout == torch.strided:
            told |= {"strides": held.stride(), "storage_offset": held.storage_offset()}
        made = Tensor._make_wrapper_subclass(cls, held.shape, **told)
        made.held = held.detach()
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl

    device = property(lambda self: CUDA)
    is_cuda = property(lambda self: True)
    is_cpu = property(lambda self: False)

    def __repr__(self):
        return f"OnCuda({self.held!r})"

    def data_ptr(self):
        return self.held.data_ptr()

    def tolist(self):
        _waited("tolist")
        return self.held.tolist()

    def numpy(self):
        raise TypeError("can't convert cuda:0 device type tensor to numpy")

    def __deepcopy__(self, memo):
        return OnCuda(self.held.clone())

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        strangers = _strangers(func, args, kwargs)
        if any(strangers):
            raise Mixed(f"{func} takes tensors of host and device")
        if strangers or _waits(func, args, kwargs):
            _waited(func)
        if strangers and func is COPY:
            _run(func, args, kwargs)
            return args[0]
        out = _run(func, args, kwargs)
        _keep(func, args, kwargs, out)
        return return_and_correct_aliasing(func, args, kwargs, out)


def _strangers(func, args, kwargs):
    """Of each tensor of the host: whether it may not meet those of the device in this operation."""
    found = [x for x in tree_flatten((args, kwargs))[0] if type(x) is Tensor]
    # A number may, and an index, and what is copied.
    if func is COPY:
        return [False] * len(found)
    indices = args[1] if func in BY_INDEX else []
    return [x.dim() > 0 and not any(x is index for index in indices) for x in found]


def _waits(func, args, kwargs):
    if func is LENGTH_UNLESS_TOLD:
        return kwargs.get("output_size") is None
    if func in BY_INDEX:
        return any(x is not None and x.dtype == torch.bool for x in args[1])
    return bool(WAITS & set(func.tags))


def _run(func, args, kwargs):
    args, kwargs = tree_map_only(OnCuda, lambda x: x.held, (args, kwargs))
    return tree_map_only(Tensor, OnCuda, func(*args, **kwargs))


def _keep(func, args, kwargs, out):
    """Count an operation, and record it, where that is wanted."""
    if PRETENDED.operations is not None and _starts_kernel(func):
        PRETENDED.operations.append(func)
    if PRETENDED.recording is not None:
        PRETENDED.recording.append((func, args, kwargs, out))


def _on_the_host(func, args, kwargs):
    """As `_run`, of what C++ makes of several operations."""
    PRETENDED.inside = False
    return _run(func, args, kwargs)


def _starts_kernel(func):
    if isinstance(func, Launch):
        return True
    view = any(r.alias_info and not r.alias_info.is_write for r in func._schema.returns)
    return not view and func._schema.name.partition("::")[2] not in NO_KERNELS


def _waited(what):
    PRETENDED.waits += 1
    if PRETENDED.forbids_waiting or PRETENDED.recording is not None:
        raise Wait(f"{what} makes the host wait for the device")


class Pretended(TorchFunctionMode):
    """Puts on the device what torch is asked to make there, while it is entered."""

    def __init__(self):
        super().__init__()
        self.forbids_waiting = False
        self.waits = 0
        self.operations = None
        self.recording = None
        # Whether the innermost call from Python took tensors of the device.
        self.inside = False

    @contextlib.contextmanager
    def counting(self):
        """Yield a list of the kernels that are started."""
        self.operations = []
        try:
            yield self.operations
        finally:
            self.operations = None

    @contextlib.contextmanager
    def without_waiting(self):
        self.forbids_waiting = True
        try:
            yield
        finally:
            self.forbids_waiting = False

    def __torch_function__(self, func, types, args=(), kwargs=None):
        before = self.inside
        operands = tree_flatten((args, kwargs))[0]
        self.inside = any(isinstance(x, OnCuda) for x in operands)
        try:
            return self._call(func, args, dict(kwargs or {}))
        finally:
            self.inside = before

    def _call(self, func, args, kwargs):
        source = args[0] if args and isinstance(args[0], Tensor) else None
        if func is Tensor.cuda:
            return _moved(source, CUDA)
        if func is Tensor.cpu:
            return _moved(source, torch.device("cpu"))
        if func is Tensor.new_tensor and isinstance(source, OnCuda):
            _waited(func)
            return OnCuda(source.held.new_tensor(*args[1:], **kwargs))
        if func is Tensor.to:
            return self._to(source, args[1:], kwargs)
        if kwargs.get("device") is not None:
            device = torch.device(kwargs["device"])
            if device.type == "cuda":
                kwargs["device"] = "cpu"
                if func in (torch.tensor, torch.as_tensor):
                    _waited(func)
                    return _on_the_host(func, args, kwargs)
                self.inside = True
                made = func(*args, **kwargs)
                return made if isinstance(made, OnCuda) else OnCuda(made)
        if self.inside and func is torch.sparse_csr_tensor:
            return _on_the_host(func, args, kwargs)
        return func(*args, **kwargs)

    def _to(self, source, args, kwargs):
        places = [*args, *kwargs.values()]
        target = next((x.device for x in places if isinstance(x, Tensor)), None)
        for place in places:
            if isinstance(place, str | torch.device):
                target = torch.device(place)
        types = [x.dtype if isinstance(x, Tensor) else x for x in places]
        dtype = next((x for x in types if isinstance(x, torch.dtype)), None)
        moved = source if target is None else _moved(source, target)
        return moved if dtype is None else moved.to(dtype)


class FromWithin(TorchDispatchMode):
    """Puts on the device what C++ makes for an operation there.

    It asks a tensor of the device where it is, and takes it to be on the CPU.
    """

    @classmethod
    def _should_skip_dynamo(cls):
        # Nothing is compiled here, and looking out for it takes longer than the rest.
        return False

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        args, kwargs = args, kwargs or {}
        operands = [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, Tensor)]
        if operands or not PRETENDED.inside:
            return func(*args, **kwargs)
        out = _run(func, args, kwargs)
        _keep(func, args, kwargs, out)
        return out


PRETENDED = Pretended()


class _Move(torch.autograd.Function):
    @staticmethod
    def forward(ctx, source, device):
        ctx.device = source.device
        _waited("a copy between host and device")
        return OnCuda(source.detach().clone()) if device.type == "cuda" else source.held.clone()

    @staticmethod
    def backward(ctx, gradient):
        return _moved(gradient, ctx.device), None


def _moved(source, device):
    return source if source.device.type == device.type else _Move.apply(source, device)


class Graph:
    """Stands in for ``torch.cuda.CUDAGraph``."""

    def __init__(self):
        self._operations = []

    def replay(self):
        for func, args, kwargs, out in self._operations:
            again = _run(func, args, kwargs)
            if _starts_kernel(func):
                kept, new = (tree_flatten(x)[0] for x in (out, again))
                for one, other in zip(kept, new, strict=True):
                    if isinstance(one, Tensor) and one.held is not other.held:
                        one.held.copy_(other.held)


class Launch:
    """A kernel in Triton with its grid, which the interpreter runs."""

    def __init__(self, run):
        self._run = run

    def __call__(self, *args, **kwargs):
        # What the interpreter does on the host is not done on the device.
        PRETENDED.inside = False
        self._run(*args, **kwargs)


def interpret_kernels(monkeypatch):
    """Let kernels in Triton run on the device; slowly."""
    from triton.runtime.interpreter import GridExecutor

    plain = GridExecutor.__call__

    def launch(executor, *args, **kwargs):
        strangers = [x for x in args if type(x) is Tensor]
        if not any(isinstance(x, OnCuda) for x in args):
            return plain(executor, *args, **kwargs)
        if strangers:
            raise Mixed(f"{executor.fn.__name__} takes tensors of host and device")
        func = Launch(lambda *args, **kwargs: plain(executor, *args, **kwargs))
        with torch._C.DisableTorchFunction():
            _run(func, args, kwargs)
        _keep(func, args, kwargs, None)

    monkeypatch.setattr(GridExecutor, "__call__", launch)
    monkeypatch.setattr(kernels, "triton_usable", lambda device: True)


@contextlib.contextmanager
def capture(graph):
    """Stands in for ``torch.cuda.graph``."""
    PRETENDED.recording = graph._operations
    try:
        yield
    finally:
        PRETENDED.recording = None


class Stream:
    """Stands in for ``torch.cuda.Stream``."""

    def __init__(self, priority=0):
        pass

    def wait_stream(self, other):
        pass


class Generator(torch.Generator):
    """Stands in for ``torch.Generator``."""

    def __new__(cls, device="cpu"):
        return super().__new__(cls, "cpu")


def forbid_waiting(mode):
    """Stands in for ``torch.cuda.set_sync_debug_mode``."""
    PRETENDED.forbids_waiting = mode == "error"


def grouped(tensors, *args, grouped=Optimizer._group_tensors_by_device_and_dtype):
    """Stands in for how optimizers group tensors, which C++ does by where it takes them to be."""
    groups = grouped(tensors, *args).items()
    return {(found[0][0][0].device, kind): found for (_, kind), found in groups}


@contextlib.contextmanager
def pretended(monkeypatch):
    """Let torch have a CUDA device, which is yielded, until this is left."""
    stream = Stream()
    for name, value in {
        "is_available": lambda: True,
        "get_device_name": lambda *args: "a pretended device",
        "CUDAGraph": Graph,
        "graph": capture,
        "Stream": Stream,
        "current_stream": lambda: stream,
        "set_stream": lambda stream: None,
        "stream": lambda stream: contextlib.nullcontext(),
        "set_sync_debug_mode": forbid_waiting,
        "synchronize": lambda *args: None,
        "mem_get_info": lambda *args: (MEMORY, MEMORY),
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    # In a build for CUDA an optimizer asks the driver, which may be missing, if it is recorded.
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda *args, **kwargs: None)
    monkeypatch.setattr(torch, "Generator", Generator)
    monkeypatch.setattr(Optimizer, "_group_tensors_by_device_and_dtype", grouped)
    # A module that is moved takes a new parameter: the old one cannot become one of another class.
    future = torch.__future__
    # Its kernels would not run here.
    monkeypatch.setattr(kernels, "triton_usable", lambda device: False)
    monkeypatch.setattr(cuda_graphs, "_recordable", True)
    cuda_graphs._stream_aside.cache_clear()
    monkeypatch.setattr(future, "_overwrite_module_params_on_conversion", True)
    with PRETENDED, FromWithin():
        yield PRETENDED
    cuda_graphs._stream_aside.cache_clear()
