"""Which answers are shown, that they are the model's, and that pictures are the images."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image

from onetrunk.data.task import Task
from onetrunk.eval.features import draw
from onetrunk.report.dense import colour_metres, coloured, dense_examples, swatch
from onetrunk.report.picture import Picture
from onetrunk.report.pictures import SHOWN, pictures, predictions
from tests.helpers.small import DENSE, domain, network

KINDS = (
    Task("tags", "multilabel", ("x", "y", "z")),
    Task("age", "regress", unit="years", outputs=2),
    Task("near", "embed", ("p", "q")),
    Task("classify", "classify", ("a", "b", "c")),
)


def opened(picture: Picture) -> np.ndarray:
    head, data = picture.uri.split(",")
    assert head == "data:image/webp;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


def test_small_pictures_are_the_pixels_and_large_ones_shrink() -> None:
    chance = np.random.default_rng(0)
    small = chance.integers(0, 256, (20, 30, 3), np.uint8)
    made = Picture.of(small)
    np.testing.assert_array_equal(opened(made), small)
    assert (made.small, made.width, made.height) == (True, 30, 20)
    large = Picture.of(chance.integers(0, 256, (300, 600, 3), np.uint8))
    assert (large.small, large.width, large.height) == (False, 128, 64)
    classes = np.repeat(np.repeat(small[:4, :4], 100, 0), 100, 1)
    exact = opened(Picture.of(classes, lossless=True))
    assert {tuple(c) for c in exact.reshape(-1, 3)} <= {tuple(c) for c in small.reshape(-1, 3)}


def test_predictions_are_the_model_s_and_rows_are_what_they_say() -> None:
    world = domain("kinds", *KINDS, count=40)
    model = network([world])
    model.train()
    found = {shown.task: shown for shown in pictures({"kinds": model}, [world])}
    assert model.training
    assert list(found) == ["tags", "age", "near", "classify"]
    places = draw(world.test, "kinds", 256, 0)
    with torch.no_grad():
        out = model.eval()(world.test.batch(places)[0], domain="kinds")
    of_file = {world.test.key(int(p)): i for i, p in enumerate(places)}

    best = out["classify"].argmax(1)
    score = out["classify"].softmax(1).max(1).values
    truth = world.test.label("classify")
    rows = dict(found["classify"].rows)
    right, wrong = rows["Right, drawn at random"], rows["Wrong, the surest first"]
    assert 0 < len(right) <= SHOWN and 0 < len(wrong) <= SHOWN
    for one in (*right, *wrong):
        i = of_file[one.file]
        assert one.said == "abc"[best[i]] and one.truth == "abc"[truth[places[i]]]
        assert one.right == (one.said == one.truth)
        assert one.score == pytest.approx(score[i].item(), abs=1e-5)
        image = world.test.pixels.centre(world.test.stored(places[i : i + 1])[0])[0]
        np.testing.assert_array_equal(opened(one.pictures[0]), image)
    assert all(one.right for one in right) and not any(one.right for one in wrong)
    scores = [one.score or 0 for one in wrong]
    assert scores == sorted(scores, reverse=True)
    missed = score[best != torch.from_numpy(truth[places])]
    assert scores[0] == pytest.approx(missed.max().item(), abs=1e-5)

    near, far = (row for _, row in found["age"].rows)
    apart = (out["age"] - torch.from_numpy(world.test.label("age")[places])).norm(dim=1)
    assert apart[of_file[far[0].file]] == apart.max()
    assert all(apart[of_file[one.file]] <= apart.median() for one in near)
    assert far[0].truth.endswith(" years")

    for heading, row in found["near"].rows:
        for one in row:
            assert len(one.pictures) == 2
            assert one.right == (one.truth == one.said) == ("same class" in heading)

    said = out["tags"].sigmoid() >= 0.5
    for _, row in found["tags"].rows:
        for one in row:
            names = [c for c, there in zip("xyz", said[of_file[one.file]], strict=True) if there]
            assert one.said == (", ".join(names) or "–")


def test_of_many_images_a_seeded_sample_is_looked_at() -> None:
    world = domain("a", count=30)
    model = network([world])
    (some,) = pictures({"a": model}, [world], sample=9)
    assert some.seen == 9
    assert some == pictures({"a": model}, [world], sample=9)[0]
    files = {one.file for _, row in some.rows for one in row}
    assert len(files) <= 9
    other = {
        o.file for _, r in pictures({"a": model}, [world], sample=9, seed=1)[0].rows for o in r
    }
    assert files != other


def test_images_without_a_label_are_not_shown() -> None:
    world = domain("kinds", *KINDS)
    test = world.index.rows("test")
    for task, mark in (("classify", -1), ("tags", 255), ("age", np.nan), ("near", -1)):
        world.index.labels[task][test] = mark
    found = pictures({"kinds": network([world])}, [world])
    assert [shown.rows for shown in found] == [(), (), (), ()]


def test_maps_of_the_best_the_middle_and_the_worst() -> None:
    world = domain("rooms", *DENSE, count=15)
    model = network([world])
    (shown,) = pictures({"rooms": model}, [world])
    assert shown.kind == "dense" and shown.classes == ("sky", "sea")
    assert [example.what.split(":")[0] for example in shown.maps] == ["best", "middle", "worst"]
    names = [name for name, _ in shown.maps[0].tiles]
    assert names[:3] == ["image", "parts: truth", "parts: predicted"] and len(names) == 7
    places = draw(world.test, "rooms", 256, 0)
    out, targets = predictions(model, "rooms", world.test, places)
    error = (out["parts"].argmax(1) != targets["parts"]).float().mean((1, 2))
    files = [world.test.key(int(p)) for p in places]
    assert error[files.index(shown.maps[0].file)] == error.min()
    assert error[files.index(shown.maps[2].file)] == error.max()
    assert f"{100 * error.max():.1f} %" in shown.maps[2].what
    nothing = {**targets, "parts": torch.full_like(targets["parts"], 255)}
    assert dense_examples(world.test, places, DENSE, out, nothing) == ()


def test_truth_and_prediction_share_their_colours() -> None:
    depth = np.array([[1.0, 2.0], [4.0, 0.0]], np.float32)
    tinted = colour_metres(depth, (1.0, 4.0))
    brightness = tinted.astype(int).sum(-1)
    assert brightness[0, 0] > brightness[0, 1] > brightness[1, 0] > brightness[1, 1] == 0
    np.testing.assert_array_equal(colour_metres(depth * 0 + 0.2, (1.0, 4.0))[0, 0], tinted[0, 0])
    target = torch.tensor([[0, 1], [1, 255]], dtype=torch.uint8)
    out = torch.nn.functional.one_hot(target.long() % 2, 2).permute(2, 0, 1).float()
    truth, said = coloured(DENSE[0], out, target)
    np.testing.assert_array_equal(truth[0], said[0])
    assert truth[1, 1].tolist() == [0, 0, 0]
    assert swatch(1) == "rgb({},{},{})".format(*truth[0, 1])
    normal = torch.zeros(3, 2, 2)
    normal[2] = 1
    truth, said = coloured(DENSE[2], normal, normal)
    np.testing.assert_array_equal(truth, said)
    assert truth[0, 0].tolist() == [128, 128, 255]
