"""Class means: the linear head predicts the nearest mean by cosine."""

from __future__ import annotations

import pytest
import torch

from onetrunk.train.fewshot.class_means import SCALE, class_means, class_means_error


def test_it_is_the_nearest_mean_by_cosine() -> None:
    torch.manual_seed(0)
    x, labels = torch.randn(40, 7) + 3, torch.arange(40) % 5
    queries = torch.randn(30, 7) + 3
    weight, bias = class_means(x, labels, 5)
    middle = x.double().mean(0)
    means = []
    for c in range(5):
        rows = [(row - middle) / (row - middle).norm() for row in x[labels == c].double()]
        means.append(sum(rows) / len(rows))
    for row in queries.double():
        cosines = [torch.cosine_similarity(row - middle, mean, 0) for mean in means]
        logits = weight @ row + bias
        torch.testing.assert_close(
            logits / logits.norm(), torch.stack(cosines) / torch.stack(cosines).norm()
        )
    length = (x.double() - middle).norm(dim=1).mean()
    torch.testing.assert_close(weight.norm(dim=1), torch.full((5,), SCALE / length).double())


def test_a_class_without_images_is_never_predicted() -> None:
    x, labels = torch.randn(6, 3), torch.tensor([0, 0, 0, 2, 2, 2])
    weight, bias = class_means(x, labels, 3)
    assert ((torch.randn(50, 3).double() @ weight.T + bias).argmax(1) != 1).all()


def test_order_and_scale_make_no_difference() -> None:
    torch.manual_seed(1)
    x, labels = torch.randn(12, 4), torch.arange(12) % 3
    mixed = torch.randperm(12)
    for one, other in zip(
        class_means(x, labels, 3), class_means(x[mixed], labels[mixed], 3), strict=True
    ):
        torch.testing.assert_close(one, other)
    known = (x, labels)
    assert class_means_error(known, known, 3) == class_means_error(
        (5 * x, labels), (5 * x, labels), 3
    )


def test_one_image_per_class_is_classified() -> None:
    x, labels = torch.eye(4), torch.arange(4)
    assert class_means_error((x, labels), (x + 0.01, labels), 4) == pytest.approx(0.0)
