"""`cityscapes:PATH?classes=7&depth=disparity`: street scenes with classes and depth, as NPY arrays.

The preprocessed archives of Liu, Johns & Davison, "End-to-End Multi-Task Learning with Attention",
CVPR 2019 (128×256 or 256×512; 2975 images to train, 500 to evaluate), of Cordts et al.'s Cityscapes:
PATH/{train,val}/{image,label_7,label_19,depth}/N.npy, or one folder `label`; -1 is not labelled.

The files do not say which classes `label` holds nor what `depth` counts, so both are said and never
guessed. `depth=disparity`: what those archives hold, inverse depth; its values are Cityscapes'
16-bit disparities over 65535, so near is large, 0 is not labelled, and 1.85 over a value is about
the metres. `depth=metres`: arrays that somebody made metres of. Nothing is converted.
"""

from __future__ import annotations

from onetrunk.data.sources import SourceOptions
from onetrunk.data.sources._scenes import Scenes, folder_of, options
from onetrunk.data.sources.nyuv2 import with_classes
from onetrunk.data.task import Kind, Task
from onetrunk.errors import BadInput

CLASSES = {
    "7": ("flat", "construction", "object", "nature", "sky", "human", "vehicle"),
    "19": (
        *("road", "sidewalk", "building", "wall", "fence", "pole", "traffic light"),
        *("traffic sign", "vegetation", "terrain", "sky", "person", "rider", "car", "truck"),
        *("bus", "train", "motorcycle", "bicycle"),
    ),
}
UNITS = {"disparity": "disparity", "metres": "m"}


class Cityscapes(Scenes):
    """The archive, by what the user says of it."""

    def __init__(self, rest: str, asked: SourceOptions) -> None:
        path, said = options(rest, {"classes": [*CLASSES], "depth": [*UNITS]}, "cityscapes")
        folder = folder_of(asked, path, "cityscapes")
        label = f"label_{said.get('classes')}"
        if not any((folder / split / label).is_dir() for split in ("train", "val")):
            label = "label"
        if "classes" not in said:  # refused below; until then, whichever is there
            there = sorted(folder.glob("train/label*"))
            label = there[0].name if there else label
        places: dict[Kind, str] = {"segment": label, "depth": "depth"}
        super().__init__(f"cityscapes:{rest}", folder, asked, places)
        lacking = {
            "segment": ("classes", "classes=7 or classes=19"),
            "depth": (
                "depth",
                "depth=disparity (inverse, as the archives have it) or depth=metres",
            ),
        }
        kinds = [k for k in places if any(t.kind == k for t in self.tasks)]
        if ask := [lacking[kind] for kind in kinds if lacking[kind][0] not in said]:
            known = {**said, **{key: "…" for key, _ in ask}}
            raise BadInput(
                f"{self.name}: its files do not say {' nor '.join(key for key, _ in ask)}",
                got=f"no {' and no '.join(key for key, _ in ask)} behind the path",
                available=[words for _, words in ask],
                try_=f"cityscapes:{path}?{'&'.join(f'{k}={v}' for k, v in sorted(known.items()))}",
            )
        self.tasks = tuple(
            with_classes(self.name, task, CLASSES[said["classes"]])
            if task.kind == "segment"
            else Task(task.name, task.kind, column=task.column, unit=UNITS[said["depth"]])
            for task in self.tasks
        )


SOURCE = Cityscapes
