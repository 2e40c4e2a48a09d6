"""Running statistics over micro-batches."""

import torch
from torch import nn

from goae.training.buffers import BufferMean


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(2)
        self.register_buffer("table", torch.tensor([0.1, 1 / 3, 7.7]), persistent=False)


def test_statistics_are_averaged_and_constants_left_alone() -> None:
    net, batches = Net(), torch.randn(3, 4, 2, generator=torch.Generator().manual_seed(0))
    alone = []
    for batch in batches:
        single = Net()
        single.norm(batch)
        alone.append(single.norm.running_mean.clone())
    table = net.table.clone()
    for _ in range(50):  # a mean of three would round the constants ever further
        buffers = BufferMean([net])
        for batch in batches:
            buffers.begin()
            net.norm(batch)
            buffers.end()
        buffers.finish(1 / 3, lambda tensors: None)
        if net.norm.num_batches_tracked == 1:
            torch.testing.assert_close(net.norm.running_mean, torch.stack(alone).mean(0))
    assert torch.equal(net.table, table) and int(net.norm.num_batches_tracked) == 50
