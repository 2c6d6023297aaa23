import torch

from lightsae.metrics import L0, l0


def test_counts_the_latents_in_use_per_row() -> None:
    assert l0(torch.tensor([[3.0, 1.0, 0.0], [2.0, 0.0, 0.0]])) == 1.5


def test_dense_and_sparse_codes_agree() -> None:
    values = torch.tensor([[3.0, 1.0], [2.0, 0.0]])
    dense = torch.tensor([[0.0, 3.0, 0.0, 1.0], [2.0, 0.0, 0.0, 0.0]])
    assert l0(values) == l0(dense)


def test_batches_are_weighted_by_their_rows() -> None:
    metric = L0()
    metric.update(torch.ones(1, 4))
    metric.update(torch.zeros(3, 4))
    metric.update(torch.zeros(0, 4))
    assert metric.compute() == 1


def test_tokens_are_rows() -> None:
    assert l0(torch.ones(2, 3, 4)) == 4


def test_without_rows_there_is_no_mean() -> None:
    assert l0(torch.zeros(0, 4)).isnan()


def test_forward_returns_the_batch() -> None:
    metric = L0()
    assert metric(torch.ones(1, 4)) == 4
    assert metric(torch.zeros(1, 4)) == 0
    assert metric.compute() == 2
