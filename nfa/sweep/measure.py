"""The sensitivities of all linear maps of a network from one forward and k input-gradient backwards.

``C = E Σ_k δ_k δ_kᵀ`` with ``δ_k = ∂f_k/∂z`` at the output z of a map; the expectation runs over samples,
the sum also over positions, tokens and calls. Each map's output tensor carries a hook that adds its
``δδᵀ`` while a backward passes by: no Jacobian tensor, no unfolded patches, nothing recomputed per layer.

Cost: the forward, k backwards without weight gradients (k = outputs, or probes, or fewer through the head),
and for each backward and map one product of the size of a 1 × 1 convolution.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from nfa.errors import NfaError
from nfa.layers.maps import LinearMap, has_unbuilt
from nfa.sweep.batches import Batch, OutputFn, prepare, split, understood
from nfa.sweep.observer import Observer, Sweep
from nfa.sweep.passes import Measurement
from nfa.sweep.taps import Recorder
from nfa.sweep.untouched import untouched


def measure_sensitivities(
    model: nn.Module,
    batches: Iterable[Batch] | Tensor,
    maps: Sequence[LinearMap],
    *,
    output: str = "logits",
    output_fn: OutputFn | None = None,
    probes: int | None = None,
    neglect: float = 0.0,
    chunk: int = 1,
    max_samples: int | None = None,
    centered: bool = False,
    replicates: int = 1,
    replicates_over: str = "auto",
    bases: Mapping[str, Tensor] | None = None,
    seed: int = 0,
    device: torch.device | str | None = None,
    piece_limit: int | None = None,
    watch: Observer | None = None,
) -> Sweep:
    """Measure C of every map in one sweep over the data, leaving the model as it was.

    Args:
        model: any module; put into eval mode meanwhile, so that samples do not interact.
        batches: tensors x, pairs (x, target), pairs ((x1, x2, …), target), or keyword dictionaries; a
            bare tensor is one batch. The first dimension counts samples. Floating inputs are cast to
            the dtype of the model. Outputs at positions whose ``attention_mask`` is 0 do not count.
        maps: from `nfa.layers.maps.find_maps`.
        output: ``logits`` (what the model returns), ``softmax`` or ``log_softmax`` of it, or the
            ``loss`` of each sample (cross-entropy for integer targets, else mean squared error).
        output_fn: picks the tensor of outputs out of what the model returns; by default the only floating
            tensor in there, or of several the one called ``logits``, ``out`` or ``last_hidden_state``.
        probes: None for all outputs, exactly, going through the head where that takes fewer backwards
            (`nfa.sweep.through_head`); K draws K random ±1 combinations for each sample, an unbiased
            estimate at K backwards.
        neglect: exact mode through the head: leave out its weakest directions up to this share.
        chunk: outputs (or probes) carried by one batched backward; more memory, fewer launches.
        max_samples: stop after so many samples.
        centered: remove the mean gradient of each output, ``C - Σ_k mean(δ_k) mean(δ_k)ᵀ``, the mean
            over samples and positions. Exact mode only.
        replicates: keep up to so many partial sums, from which standard errors are found; at most 4 and 2
            for maps above 512 and 2048.
        replicates_over: ``batches``, ``probes``, or ``auto``: over batches in exact mode, over probes in
            probe mode.
        bases: for each map name an orthonormal (groups, out, q) basis; C is measured in it.
        seed: of the probes.
        device: where to run; None means where the model is.
        piece_limit: carry at most so many samples through the model at once. Where memory runs out, a
            piece is halved and the sweep goes on.
        watch: looks on, and may end the sweep early.

    Raises:
        NfaError: nothing to measure, no samples, values that are not finite, samples that interact
            (BatchNorm without running statistics), outputs that cannot be differentiated, or too little
            memory for one sample.
    """
    batches = [batches] if isinstance(batches, Tensor) else batches
    home = device_of(model)
    target_device = torch.device(device) if device is not None else home
    _check_independent_samples(model)
    with _on_device(model, home, target_device), untouched(model):
        recorder = Recorder(maps, bases or {}, replicates, centered, target_device, model, piece_limit)
        over_probes = probes is not None and replicates_over != "batches"
        measurement = Measurement(
            model, recorder, output, output_fn, probes, neglect, chunk, seed, over_probes, watch or Observer()
        )
        measurement.measure_all(batches, max_samples)
        if not measurement.samples:
            raise NfaError("no samples to measure on: the batches are empty")
        return measurement.sweep()


def build(model: nn.Module, batch: Batch) -> None:
    """Give lazily built modules their shapes by one forward."""
    if has_unbuilt(model):
        with untouched(model), torch.no_grad():
            understood(model, prepare(model, split(batch)[0], device_of(model)))


def bases_of(maps: Sequence[LinearMap], initial: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Orthonormal bases of range([W, W₀]) for the maps in which that makes C clearly smaller.

    Args:
        maps: with weights W.
        initial: weights W₀, of some of them.
    """
    bases = {}
    for lmap in maps:
        if lmap.module._forward_pre_hooks:  # the weight may be made anew by the forward (weight_norm)
            continue
        parts = [lmap.weight()]
        if lmap.name in initial and not lmap.arbitrary_rows:
            parts.append(initial[lmap.name])
        out, inputs = parts[0].shape[1], sum(part.shape[2] for part in parts)
        if inputs <= 0.6 * out and all(bool(torch.isfinite(part).all()) for part in parts):
            W = torch.cat([part.to(parts[0].device, torch.float64) for part in parts], 2)
            bases[lmap.name] = torch.linalg.qr(W).Q
    return bases


def all_reduce(sweep: Sweep) -> None:
    """Add up the sweeps of all ranks of the default process group, in place; each rank gets the sum."""
    for sensitivity in sweep.sensitivities.values():
        sensitivity.all_reduce()
        sweep.samples = sum(sensitivity.counts) // (sweep.probes or 1)


def device_of(model: nn.Module) -> torch.device:
    """Where the model is."""
    return next((t.device for t in (*model.parameters(), *model.buffers())), torch.device("cpu"))


# ---- checks and places ------------------------------------------------------------------------------------


def _check_independent_samples(model: nn.Module) -> None:
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is None:
            raise NfaError(
                f"{name} ({type(module).__name__}) has no running statistics, so that the samples of a batch "
                "interact and have no gradients of their own; use track_running_stats=True"
            )


@contextmanager
def _on_device(model: nn.Module, home: torch.device, target: torch.device) -> Iterator[None]:
    if home == target:
        yield
        return
    places = {tensor.device for tensor in (*model.parameters(), *model.buffers())}
    if len(places) > 1:
        raise NfaError(
            f"the network lies on several devices ({', '.join(sorted(map(str, places)))}) and cannot be "
            "moved to one and back: leave device out"
        )
    try:
        model.to(target)
        yield
    finally:
        model.to(home)
