import torch

from lightsae.metrics import monosemanticity


def test_dead_and_undefined_latents_count_as_zero_where_the_name_says_so() -> None:
    values = torch.tensor([[1.0], [1.0], [1.0], [1.0]])
    indices = torch.tensor([[0], [0], [1], [2]])
    embeddings = torch.tensor([[2.0, 0.0], [3.0, 4.0], [1.0, 0.0], [1.0, 0.0]]).double()
    scores = monosemanticity(values, indices, embeddings, d_sae=4)
    assert (scores.n_scored, scores.n_undefined, scores.n_dead) == (1, 2, 1)
    torch.testing.assert_close(scores.mean, torch.tensor(0.6).double(), check_dtype=False)
    torch.testing.assert_close(scores.mean_with_dead_as_zero, torch.tensor(0.15).double())
    assert scores.median_with_dead_as_zero == 0
    assert scores.scores.isnan().sum() == 3


def test_where_all_are_dead_the_mean_is_zero() -> None:
    none = torch.zeros(0, 1)
    scores = monosemanticity(none, none.long(), torch.zeros(0, 2), d_sae=3)
    assert scores.mean.isnan()
    assert (scores.mean_with_dead_as_zero, scores.median_with_dead_as_zero) == (0, 0)
