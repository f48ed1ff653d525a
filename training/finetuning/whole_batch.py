"""A training step over a whole batch, which parts or processes may share without a trace in its gradient."""

from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any, Protocol

import torch
from mmengine.runner import EpochBasedTrainLoop, Runner

from mad_backend.core.labels import VOID
from training.finetuning.ranks import total, world


class CountsItsLosses(Protocol):
    """A model that tells what its losses are means over.

    `loss_counts` has of a part of a batch, by name of the loss, a scalar tensor: how many pixels its mean is over (the
    sum of their weights, where they are weighted). Losses without a name there go by `counted_pixels`.
    """

    def loss_counts(self, data_samples: list[Any]) -> dict[str, torch.Tensor]: ...


class WholeBatchLoop(EpochBasedTrainLoop):  # type: ignore[misc]
    """mmengine's epochs, each process's images in `parts` that pass the network one after another.

    A loss is a mean over the pixels of a batch. Each part's is weighted with its share of these pixels in all parts of
    all processes, so that the sum of gradients is that of the whole batch up to rounding. That holds for losses that
    are means over pixels, in networks whose layers look at one image at a time: with frozen batch norm and without
    dropout. Losses that choose pixels or normalise over a batch (OHEM, Dice, Lovász) are means of the parts' values.
    """

    def __init__(self, runner: Runner, dataloader: Any, max_epochs: int, parts: int = 1) -> None:
        super().__init__(runner, dataloader, max_epochs)
        self._parts = parts

    def run_iter(self, idx: int, data_batch: Any) -> None:
        runner = self.runner
        runner.call_hook("before_train_iter", batch_idx=idx, data_batch=data_batch)
        if self._parts == 1 and world() == 1:
            outputs = runner.model.train_step(data_batch, optim_wrapper=runner.optim_wrapper)
        else:
            outputs = self._step(data_batch)
        runner.call_hook("after_train_iter", batch_idx=idx, data_batch=data_batch, outputs=outputs)
        self._iter += 1

    def _step(self, data_batch: dict[str, list[Any]]) -> dict[str, torch.Tensor]:
        model, wrapper = self.runner.model, self.runner.optim_wrapper
        module = model.module if world() > 1 else model
        parts = [module.data_preprocessor(part, True) for part in _split(data_batch, self._parts)]
        counts = [_counts(module, part["data_samples"]) for part in parts]
        names = sorted(counts[0])
        whole = total(torch.stack([torch.stack([part[name] for name in names]) for part in counts]).sum(0))
        sums = dict(zip(names, whole.clamp(min=1e-12), strict=True))
        loss = torch.zeros((), device=whole.device)
        for number, (part, count) in enumerate(zip(parts, counts, strict=True)):
            is_last = number == len(parts) - 1
            # Gradients are exchanged once a batch.
            quiet = nullcontext() if is_last or world() == 1 else model.no_sync()
            with quiet:
                with wrapper.optim_context(model):
                    losses = model(**part, mode="loss")
                shares = {name: count[name] / sums[name] for name in names}
                weighted = {name: _weighted(value, name, shares) for name, value in losses.items()}
                own, _ = module.parse_losses(weighted)
                # Processes' gradients are averaged, but these are to be added.
                wrapper.backward(wrapper.scale_loss(own * world()))
            loss += own.detach()
            if not is_last:
                wrapper._inner_count -= 1  # noqa: SLF001 - counts batches, of which this is a part
        if wrapper.should_update():
            wrapper.step()
            wrapper.zero_grad()
        return {"loss": total(loss)}


def counted_pixels(data_samples: list[Any]) -> torch.Tensor:
    """Pixels that are not void, a scalar float tensor."""
    return torch.stack([(sample.gt_sem_seg.data != VOID).sum() for sample in data_samples]).sum().float()


def _counts(module: Any, data_samples: list[Any]) -> dict[str, torch.Tensor]:
    """What losses are means over, by name; "" is for all others."""
    if hasattr(module, "loss_counts"):
        return {"": counted_pixels(data_samples), **module.loss_counts(data_samples)}
    return {"": mmseg_count(module, data_samples)}


def mmseg_count(module: Any, data_samples: list[Any]) -> torch.Tensor:
    """Of mmsegmentation's losses: the sum of class weights, or pixels with or without void, as its main one has it."""
    head = (
        module.decode_head[-1] if isinstance(module.decode_head, torch.nn.ModuleList) else module.decode_head
    )
    losses = head.loss_decode if isinstance(head.loss_decode, torch.nn.ModuleList) else [head.loss_decode]
    weights = getattr(losses[0], "class_weight", None)
    if weights is not None:
        by_class = torch.zeros(256, device=data_samples[0].gt_sem_seg.data.device)
        by_class[: len(weights)] = torch.as_tensor(weights, device=by_class.device)
        by_class[VOID] = 0
        return torch.stack([by_class[s.gt_sem_seg.data.long()].sum() for s in data_samples]).sum()
    if getattr(losses[0], "avg_non_ignore", False):
        return counted_pixels(data_samples)
    pixels = sum(sample.gt_sem_seg.data.numel() for sample in data_samples)
    return torch.tensor(float(pixels), device=data_samples[0].gt_sem_seg.data.device)


def _split(data_batch: dict[str, list[Any]], parts: int) -> Iterator[dict[str, list[Any]]]:
    """As `OwnPart`: every part has new images and old ones, as far as there are."""
    for number in range(parts):
        yield {name: values[number::parts] for name, values in data_batch.items()}


def _weighted(value: Any, name: str, shares: dict[str, torch.Tensor]) -> Any:
    share = shares.get(name, shares[""])
    return [one * share for one in value] if isinstance(value, list) else value * share
