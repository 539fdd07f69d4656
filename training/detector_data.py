"""Frames of the store as the detector needs them: photo, robot mask, camera, and one named set of the stored keypoints."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from dataengine.errors import DataEngineError, unknown_name
from dataengine.record.video import Names
from dataengine.store.catalogue import Catalogue, Clip, open_catalogue
from dataengine.store.repository import open_repository
from training.data import Loader, Tensors
from training.errors import TrainingError

IMAGES = ("rgb", "mask_link")
COLUMNS = (*IMAGES, "K", "keypoints_px", "keypoint_state", "keypoints_cam_m", "joint_position", "T_cam_base")
PER_KEYPOINT = ("keypoints_px", "keypoint_state", "keypoints_cam_m")
STORED = "stored"
"""The set of all keypoints that a dataset has."""


def open_frames(location: str | Path | Catalogue, split: str | None = None, clip: Clip | None = None) -> Catalogue:
    """Catalogue of a dataset that has photos and masks. Raises StoreError (no dataset, unknown or empty split), TrainingError."""
    catalogue = location if isinstance(location, Catalogue) else open_catalogue(location, split, clip=clip)
    with catalogue.open(0) as reader:
        missing = [m for m in IMAGES if m not in reader.modalities]
        if missing:
            raise TrainingError(
                f"{catalogue.location}: the detector needs {' and '.join(missing)}, stored are {', '.join(reader.modalities)}; "
                f"render with --set modalities=[{','.join(IMAGES)}] or more"
            )
    return catalogue


def has_split(location: str, split: str) -> bool:
    """Whether a dataset has any video in this split; small ones often have no other than `train`. Raises StoreError."""
    return bool(open_repository(location).manifest()["splits"].get(split))


def stored_names(catalogue: Catalogue) -> Names:
    """What the axes of the catalogue's labels mean (of its first video)."""
    with catalogue.open(0) as reader:
        return reader.names


def robot_of(catalogue: Catalogue) -> str:
    """Name of the robot in the first video's provenance; panda where it says nothing."""
    with catalogue.open(0) as reader:
        robot = dict(reader.attributes).get("provenance", {}).get("robot", {})
    return str(robot.get("name", "panda"))


def keypoint_rows(names: Names, set_name: str, robot: str) -> list[int]:
    """Where the points of a named set are among those stored. TrainingError names what is missing."""
    if set_name == STORED:
        return list(range(len(names.keypoints)))
    # Not at the top: only datasets that are read need the robot's tables.
    from dataengine.robot.keypoints import GENERAL_SETS, PANDA_SETS

    if set_name in GENERAL_SETS:
        wanted = _points_of_model(robot, set_name)
    elif set_name in PANDA_SETS:
        wanted = [(link, tuple(offset)) for link, offset in PANDA_SETS[set_name]]
    else:
        raise TrainingError(unknown_name("keypoint set", set_name, (*PANDA_SETS, *GENERAL_SETS, STORED)))
    stored = [
        (names.links[link], tuple(round(float(v), 6) for v in offset))
        for link, offset in zip(names.keypoint_links, names.keypoint_offsets_m, strict=True)
    ]
    missing = [f"{link}@{offset}" for link, offset in wanted if (link, offset) not in stored]
    if missing:
        raise TrainingError(
            f"keypoint set {set_name} needs {len(missing)} points that are not stored, first {missing[0]}; "
            f"stored: {', '.join(names.keypoints)}; choose another set, or render with robot.keypoints=[{set_name}]"
        )
    return [stored.index(point) for point in wanted]


def _points_of_model(robot: str, set_name: str) -> list[tuple[str, tuple[float, ...]]]:
    from dataengine.robot.catalogue import load_robot
    from dataengine.robot.keypoints import keypoint_set

    model = load_robot(robot)
    chosen = keypoint_set(model, set_name)
    return [
        (model.links[int(link)], tuple(round(float(v), 6) for v in offset))
        for link, offset in zip(chosen.link_index, chosen.offset_m, strict=True)
    ]


def select(batch: Mapping[str, torch.Tensor], rows: Sequence[int]) -> Tensors:
    """The batch with these keypoints only."""
    index = torch.as_tensor(list(rows))
    return {name: value[:, index] if name in PER_KEYPOINT else value for name, value in batch.items()}


class FrameBatches:
    """Shuffled batches of one or more datasets without end, one set of keypoints, on the loop's device.

    Their state is that of the loader: a killed run goes on with the very next batch.
    """

    def __init__(
        self,
        datasets: Sequence[str | Path],
        batch: int,
        set_name: str,
        split: str | None = None,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
        workers: int = 0,
    ) -> None:
        catalogues = [open_frames(d, split) for d in datasets]
        if not catalogues:
            raise TrainingError('no dataset given; name at least one, e.g. task.data=["out/hello"]')
        self.names = stored_names(catalogues[0])
        self.robot = robot_of(catalogues[0])
        self.rows = keypoint_rows(self.names, set_name, self.robot)
        for other in catalogues[1:]:
            if stored_names(other).keypoints != self.names.keypoints:
                raise TrainingError(
                    f"{other.location} stores other keypoints than {catalogues[0].location}; train on datasets with the same"
                )
        # More than one epoch a batch, so that a dataset smaller than a batch still fills it.
        repeats = [float(-(-batch // max(1, sum(map(len, catalogues)))))] * len(catalogues)
        columns = ("rgb", "mask_link", "keypoints_px", "keypoint_state")
        self.loader = Loader(
            catalogues, columns, batch, seed=seed, repeats=repeats, rank=rank, world=world, workers=workers, drop_last=True
        )
        self._iterator: Iterator[Tensors] = iter(())

    @property
    def keypoints(self) -> tuple[str, ...]:
        """Names, in the order of the batches."""
        return tuple(self.names.keypoints[r] for r in self.rows)

    def next(self, generator: torch.Generator) -> Tensors:
        """The next batch, on the generator's device."""
        batch = next(self._iterator, None)
        while batch is None:
            self._iterator = iter(self.loader)
            batch = next(self._iterator, None)
        return {name: value.to(generator.device, non_blocking=True) for name, value in select(batch, self.rows).items()}

    def state_dict(self) -> dict[str, Any]:
        return self.loader.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        try:
            self.loader.load_state_dict(state)
        except DataEngineError as error:
            raise TrainingError(f"the run cannot go on: {error}") from None
        self._iterator = iter(())


def read_frames(catalogue: Catalogue, rows: Sequence[int], limit: int | None = None) -> Tensors:
    """All samples (or ``limit`` of them, evenly spread) in natural order, every column of `COLUMNS`."""
    from training.data import Samples

    samples = Samples(Loader([catalogue], COLUMNS, 1, shuffle=False).batches)
    count = len(samples) if limit is None else min(limit, len(samples))
    chosen = [round(i * (len(samples) - 1) / max(1, count - 1)) for i in range(count)]
    parts = samples.__getitems__(chosen)
    return select({name: torch.stack([p[name] for p in parts]) for name in parts[0]}, rows)
