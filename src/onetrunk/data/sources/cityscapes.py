"""`cityscapes:PATH?classes=7&depth=disparity`: street scenes with classes and depth, as NPY arrays.

The preprocessed archives of Liu, Johns & Davison, "End-to-End Multi-Task Learning with Attention",
CVPR 2019, made from Cordts et al.'s Cityscapes (128×256 or 256×512; 2975 training images, 500 for
evaluation): PATH/{train,val}/{image,label_7,label_19,depth}/N.npy, or one folder `label`; -1 is not
labelled.

The files contain neither the classes of `label` nor the unit of `depth`, so both are required:

- `depth=disparity` for the original archives: Cityscapes' 16-bit disparities divided by 65535. Near
  pixels have large values, 0 is not labelled, and 1.85 divided by a value is about the distance in
  metres.
- `depth=metres` for arrays that have been converted to metres.

Values are used unchanged.
"""

from __future__ import annotations

from onetrunk.data.files.labels import fixed_classes
from onetrunk.data.files.paths import existing_folder
from onetrunk.data.sources import SourceOptions
from onetrunk.data.sources._scenes import Scenes, parse_query
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
    """The archive with the user's settings."""

    def __init__(self, rest: str, options: SourceOptions) -> None:
        known = {"classes": [*CLASSES], "depth": [*UNITS]}
        path, given = parse_query(rest, known, "cityscapes")
        folder = existing_folder(options.base, path, "cityscapes", "unpack it")
        label = f"label_{given.get('classes')}"
        if not any((folder / split / label).is_dir() for split in ("train", "val")):
            label = "label"
        if "classes" not in given:  # the error below lists what is missing
            present = sorted(folder.glob("train/label*"))
            label = present[0].name if present else label
        places: dict[Kind, str] = {"segment": label, "depth": "depth"}
        super().__init__(f"cityscapes:{rest}", folder, options, places)
        needed = {
            "segment": ("classes", "classes=7 or classes=19"),
            "depth": ("depth", "depth=disparity (inverse, as in the archives) or depth=metres"),
        }
        kinds = [k for k in places if any(t.kind == k for t in self.tasks)]
        if missing := [needed[kind] for kind in kinds if needed[kind][0] not in given]:
            query = {**given, **{key: "…" for key, _ in missing}}
            raise BadInput(
                f"{self.name}: expected {' and '.join(key for key, _ in missing)} after the path, "
                "which its files do not contain",
                available=[values for _, values in missing],
                try_=f"cityscapes:{path}?{'&'.join(f'{k}={v}' for k, v in sorted(query.items()))}",
            )
        self.tasks = tuple(
            fixed_classes(self.name, task, CLASSES[given["classes"]])
            if task.kind == "segment"
            else Task(task.name, task.kind, column=task.column, unit=UNITS[given["depth"]])
            for task in self.tasks
        )


SOURCE = Cityscapes
