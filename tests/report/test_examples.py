"""Examples: which predictions are shown, and that they are the model's on these images."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image

from onetrunk.data.task import Task
from onetrunk.eval.model_split import sample_places
from onetrunk.report.examples import ROW_LENGTH, predict, task_examples
from onetrunk.report.map_examples import class_colour, colour_depth, colour_maps, map_examples
from onetrunk.report.thumbnail import Thumbnail
from tests.helpers.small import DENSE, domain, network

KINDS = (
    Task("tags", "multilabel", ("x", "y", "z")),
    Task("age", "regress", unit="years", outputs=2),
    Task("near", "embed", ("p", "q")),
    Task("classify", "classify", ("a", "b", "c")),
)


def opened(picture: Thumbnail) -> np.ndarray:
    head, data = picture.uri.split(",")
    assert head == "data:image/webp;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


def test_small_thumbnails_are_lossless_and_large_images_are_reduced() -> None:
    chance = np.random.default_rng(0)
    small = chance.integers(0, 256, (20, 30, 3), np.uint8)
    made = Thumbnail.of(small)
    np.testing.assert_array_equal(opened(made), small)
    assert (made.pixelated, made.width, made.height) == (True, 30, 20)
    large = Thumbnail.of(chance.integers(0, 256, (300, 600, 3), np.uint8))
    assert (large.pixelated, large.width, large.height) == (False, 128, 64)
    classes = np.repeat(np.repeat(small[:4, :4], 100, 0), 100, 1)
    exact = opened(Thumbnail.of(classes, lossless=True))
    assert {tuple(c) for c in exact.reshape(-1, 3)} <= {tuple(c) for c in small.reshape(-1, 3)}


def test_examples_are_the_model_s_predictions_chosen_as_their_headings_say() -> None:
    world = domain("kinds", *KINDS, count=40)
    model = network([world])
    model.train()
    found = {shown.task: shown for shown in task_examples({"kinds": model}, [world])}
    assert model.training
    assert list(found) == ["tags", "age", "near", "classify"]
    places = sample_places(world.test, "kinds", 256, 0)
    with torch.no_grad():
        out = model.eval()(world.test.batch(places)[0], domain="kinds")
    of_file = {world.test.key(int(p)): i for i, p in enumerate(places)}

    best = out["classify"].argmax(1)
    score = out["classify"].softmax(1).max(1).values
    truth = world.test.label("classify")
    rows = {row.heading: row.examples for row in found["classify"].rows}
    right, wrong = rows.values()
    assert list(rows) == ["Correct, chosen at random", "Wrong, most confident first"]
    assert 0 < len(right) <= ROW_LENGTH and 0 < len(wrong) <= ROW_LENGTH
    for one in (*right, *wrong):
        i = of_file[one.file]
        assert one.predicted == "abc"[best[i]] and one.truth == "abc"[truth[places[i]]]
        assert one.correct == (one.predicted == one.truth)
        assert one.confidence == pytest.approx(score[i].item(), abs=1e-5)
        image = world.test.pixels.centre(world.test.stored(places[i : i + 1])[0])[0]
        np.testing.assert_array_equal(opened(one.thumbnails[0]), image)
    assert all(one.correct for one in right) and not any(one.correct for one in wrong)
    scores = [one.confidence or 0 for one in wrong]
    assert scores == sorted(scores, reverse=True)
    missed = score[best != torch.from_numpy(truth[places])]
    assert scores[0] == pytest.approx(missed.max().item(), abs=1e-5)

    near, far = (row.examples for row in found["age"].rows)
    apart = (out["age"] - torch.from_numpy(world.test.label("age")[places])).norm(dim=1)
    assert apart[of_file[far[0].file]] == apart.max()
    assert all(apart[of_file[one.file]] <= apart.median() for one in near)
    assert far[0].truth.endswith(" years")

    for row in found["near"].rows:
        for one in row.examples:
            assert len(one.thumbnails) == 2
            assert one.correct == (one.truth == one.predicted) == ("same class" in row.heading)

    predicted = out["tags"].sigmoid() >= 0.5
    for row in found["tags"].rows:
        for one in row.examples:
            names = [c for c, on in zip("xyz", predicted[of_file[one.file]], strict=True) if on]
            assert one.predicted == (", ".join(names) or "–")


def test_examples_come_from_a_seeded_sample() -> None:
    world = domain("a", count=30)
    model = network([world])
    (some,) = task_examples({"a": model}, [world], sample=9)
    assert some.sample == 9
    assert some == task_examples({"a": model}, [world], sample=9)[0]
    files = {one.file for row in some.rows for one in row.examples}
    assert len(files) <= 9
    other = {
        one.file
        for row in task_examples({"a": model}, [world], sample=9, seed=1)[0].rows
        for one in row.examples
    }
    assert files != other


def test_images_without_a_label_are_not_shown() -> None:
    world = domain("kinds", *KINDS)
    test = world.index.rows("test")
    for task, mark in (("classify", -1), ("tags", 255), ("age", np.nan), ("near", -1)):
        world.index.labels[task][test] = mark
    found = task_examples({"kinds": network([world])}, [world])
    assert [shown.rows for shown in found] == [(), (), (), ()]


def test_maps_of_the_best_the_median_and_the_worst_image() -> None:
    world = domain("rooms", *DENSE, count=15)
    model = network([world])
    (shown,) = task_examples({"rooms": model}, [world])
    assert shown.kind == "dense" and shown.classes == ("sky", "sea")
    assert [example.caption.split(":")[0] for example in shown.maps] == ["best", "median", "worst"]
    first = shown.maps[0]
    assert first.image.caption == "image"
    assert [tile.caption for tile in first.truths] == [
        f"{n}: truth" for n in ("parts", "depth", "up")
    ]
    assert first.predictions[0].caption == "parts: predicted" and len(first.predictions) == 3
    places = sample_places(world.test, "rooms", 256, 0)
    out, targets = predict(model, "rooms", world.test, places)
    error = (out["parts"].argmax(1) != targets["parts"]).float().mean((1, 2))
    files = [world.test.key(int(p)) for p in places]
    assert error[files.index(shown.maps[0].file)] == error.min()
    assert error[files.index(shown.maps[2].file)] == error.max()
    assert f"{100 * error.max():.1f} %" in shown.maps[2].caption
    nothing = {**targets, "parts": torch.full_like(targets["parts"], 255)}
    assert map_examples(world.test, places, DENSE, out, nothing) == ()


def test_truth_and_prediction_share_their_colours() -> None:
    depth = np.array([[1.0, 2.0], [4.0, 0.0]], np.float32)
    tinted = colour_depth(depth, (1.0, 4.0))
    brightness = tinted.astype(int).sum(-1)
    assert brightness[0, 0] > brightness[0, 1] > brightness[1, 0] > brightness[1, 1] == 0
    np.testing.assert_array_equal(colour_depth(depth * 0 + 0.2, (1.0, 4.0))[0, 0], tinted[0, 0])
    target = torch.tensor([[0, 1], [1, 255]], dtype=torch.uint8)
    out = torch.nn.functional.one_hot(target.long() % 2, 2).permute(2, 0, 1).float()
    truth, predicted = colour_maps(DENSE[0], out, target)
    np.testing.assert_array_equal(truth[0], predicted[0])
    assert truth[1, 1].tolist() == [0, 0, 0]
    assert class_colour(1) == "rgb({},{},{})".format(*truth[0, 1])
    normal = torch.zeros(3, 2, 2)
    normal[2] = 1
    truth, predicted = colour_maps(DENSE[2], normal, normal)
    np.testing.assert_array_equal(truth, predicted)
    assert truth[0, 0].tolist() == [128, 128, 255]
