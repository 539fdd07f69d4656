"""COCO keypoints and instance masks (https://cocodataset.org/#format-data): `images/`, `annotations.json`.

One annotation per visible robot (keypoints x, y, v; mask as run lengths) and per visible object. COCO has v = 2 visible,
1 hidden but labelled, 0 not labelled, here: outside the image. Pixel centres are integers. Images carry `video_id` and
`frame_index`, so a video comes back as one.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from dataengine.convert import disk
from dataengine.convert.common import blank_rows, by_clip, image_size, keypoint_links, objects_of, require, stack_images
from dataengine.convert.disk import Array, ConvertError
from dataengine.record.video import Names, Video

FILE = "annotations.json"
ROBOT = "robot"
MAX_OBJECTS = 253


# ---- export ----------------------------------------------------------------------------------------------------------


def export_coco(videos: Iterable[Video], out: Path) -> int:
    """Write all frames as one COCO dataset; returns the number of videos.

    ConvertError: not an empty folder, rgb missing, videos of robots with different keypoints.
    """
    disk.new_folder(out)
    writer = _Writer()
    count = 0
    for video in videos:
        for f in range(video.frame_count):
            name = f"{count:06d}_{f:04d}.png"
            disk.write_png(out / "images" / name, require(video, "rgb", "COCO")[f])
            writer.add(video, f, count, name)
        count += 1
    disk.write_json(out / FILE, writer.content(), indent=None)
    return count


class _Writer:
    """Collects the lists of one annotation file."""

    def __init__(self) -> None:
        self.images: list[dict[str, Any]] = []
        self.annotations: list[dict[str, Any]] = []
        self.categories: dict[str, dict[str, Any]] = {}

    def add(self, video: Video, f: int, number: int, name: str) -> None:
        height, width = video.size
        image = len(self.images) + 1
        self.images.append(
            {"id": image, "file_name": name, "width": width, "height": height, "video_id": number, "frame_index": f, "source": video.source}
        )
        if video.names.keypoints or "mask_link" in video.images:
            self._add_robot(video, f, image)
        if "mask_object" in video.images:
            things = objects_of(video)
            for k, thing in enumerate(things):
                mask = video.images["mask_object"][f] == k + 1
                if mask.any():
                    category = self._category(thing["category"], "object", ())
                    self._annotate(image, category, mask, {"instance_id": k + 1, "name": thing["name"]})

    def _add_robot(self, video: Video, f: int, image: int) -> None:
        from dataengine.convert.ndds import robot_class

        row = video.frames[f]
        state = np.where(np.isfinite(row["keypoints_px"]).all(-1), row["keypoint_state"], 0)
        px = np.where(state[:, None] > 0, row["keypoints_px"], 0.0)
        category = self._category(robot_class(video), ROBOT, video.names.keypoints)
        triples = [v for (x, y), s in zip(px.tolist(), state.tolist(), strict=True) for v in (x, y, s)]
        points = {"keypoints": triples, "num_keypoints": int((state > 0).sum())}
        mask = video.images["mask_link"][f] > 0 if "mask_link" in video.images else None
        if points["num_keypoints"] or (mask is not None and mask.any()):
            self._annotate(image, category, mask, points)

    def _category(self, name: str, kind: str, keypoints: tuple[str, ...]) -> int:
        entry = {"id": len(self.categories) + 1, "name": name, "supercategory": kind}
        if keypoints:
            entry |= {"keypoints": list(keypoints), "skeleton": []}
        known = self.categories.setdefault(name, entry)
        if known.get("keypoints", []) != list(keypoints):
            raise ConvertError(f"COCO has one list of keypoints per category; videos of '{name}' differ in theirs, export them apart")
        return known["id"]

    def _annotate(self, image: int, category: int, mask: Array | None, more: dict[str, Any]) -> None:
        entry: dict[str, Any] = {"id": len(self.annotations) + 1, "image_id": image, "category_id": category, "iscrowd": 0}
        if mask is not None:
            from pycocotools import mask as coco

            code: Any = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
            entry |= {"bbox": coco.toBbox(code).tolist(), "area": float(coco.area(code))}
            entry["segmentation"] = {"size": list(code["size"]), "counts": code["counts"].decode("ascii")}
        else:
            seen = np.array(more["keypoints"]).reshape(-1, 3)
            seen = seen[seen[:, 2] > 0]
            low, extent = seen[:, :2].min(0), np.ptp(seen[:, :2], axis=0)
            entry |= {"bbox": [*low.tolist(), *extent.tolist()], "area": float(extent.prod())}
        self.annotations.append(entry | more)

    def content(self) -> dict[str, Any]:
        return {
            "info": {"description": "exported by dataengine", "version": "1.0"}, "licenses": [],
            "images": self.images, "annotations": self.annotations, "categories": list(self.categories.values()),
        }  # fmt: skip


# ---- import ----------------------------------------------------------------------------------------------------------


def import_coco(folder: Path, frames_per_video: int | None = None) -> Iterator[Video]:
    """Images with annotations of a COCO dataset: `annotations.json`, else the only JSON file in the folder or in annotations/.

    Robots become keypoints and a one-link mask_link (COCO does not tell links apart), other instances mask_object. Videos are
    told by `video_id`; images without one become videos of `frames_per_video` (default 1: COCO's images are unrelated).
    """
    path = _annotation_file(disk.source_folder(folder))
    data = disk.read_json(path)
    try:
        categories = {c["id"]: c for c in data["categories"]}
        by_image: dict[int, list[dict[str, Any]]] = {}
        for annotation in data["annotations"]:
            by_image.setdefault(annotation["image_id"], []).append(annotation)
        images = sorted(data["images"], key=lambda i: (i.get("video_id", -1), i.get("frame_index", i["id"])))
    except (KeyError, TypeError) as error:
        raise ConvertError(f"{path} is not a COCO annotation file: {type(error).__name__} {error}") from None

    def starts_anew(before: dict[str, Any], image: dict[str, Any]) -> bool:
        size = ("video_id", "width", "height")
        return any(before.get(k) != image.get(k) for k in size)

    per_video = frames_per_video or (None if images and "video_id" in images[0] else 1)
    for clip in by_clip(images, per_video, starts_anew):
        yield _video(clip, by_image, categories, folder, path)


def _annotation_file(folder: Path) -> Path:
    candidates = [folder / FILE] if (folder / FILE).exists() else sorted([*folder.glob("*.json"), *folder.glob("annotations/*.json")])
    if len(candidates) != 1:
        found = "none" if not candidates else ", ".join(p.name for p in candidates[:4])
        raise ConvertError(f"{folder} must hold one annotation file, {FILE} or a single *.json; found {found}")
    return candidates[0]


def _video(
    clip: list[dict[str, Any]], by_image: dict[int, list[dict[str, Any]]], categories: dict[int, Any], folder: Path, path: Path
) -> Video:
    with_robot = [c for c in categories.values() if c.get("keypoints") or c.get("supercategory") == ROBOT]
    robots = [next((a for a in by_image.get(i["id"], []) if categories[a["category_id"]] in with_robot), None) for i in clip]
    robot = next((categories[a["category_id"]] for a in robots if a), with_robot[0] if len(with_robot) == 1 else None)
    keypoints = tuple(robot.get("keypoints", ())) if robot else ()
    offsets = keypoint_links(keypoints)[2]
    things: dict[Any, dict[str, Any]] = {}
    frames = []
    for info, annotation in zip(clip, robots, strict=True):
        image = _find_image(folder, str(info["file_name"]))
        out = {"rgb": disk.read_image(image, colour=True).astype(np.uint8)}
        if out["rgb"].shape[:2] != (info["height"], info["width"]):
            raise ConvertError(f"{image} is not {info['width']}×{info['height']} as {path.name} says")
        if robot:
            out["mask_link"] = np.zeros(out["rgb"].shape[:2], np.uint8)
            if annotation and annotation.get("segmentation"):
                out["mask_link"][_mask(annotation, info)] = 1
        out["mask_object"] = np.zeros(out["rgb"].shape[:2], np.uint8)
        others = [a for a in by_image.get(info["id"], []) if categories[a["category_id"]] not in with_robot]
        for order, a in enumerate(others):
            key = a.get("instance_id", (info["id"], order))
            name = categories[a["category_id"]]["name"]
            thing = things.setdefault(key, {"name": a.get("name", f"{name}.{len(things)}"), "category": name, "instance_id": key})
            number = thing["instance_id"] = key if isinstance(key, int) else list(things).index(key) + 1
            if number > MAX_OBJECTS:
                raise ConvertError(f"{path}: more than {MAX_OBJECTS} instances in one video; import fewer frames per video")
            if a.get("segmentation"):
                out["mask_object"][_mask(a, info)] = number
        frames.append(out)
    images = stack_images(frames, folder)
    numbered = {t["instance_id"]: t for t in things.values()}
    objects = [
        numbered.get(k, {"name": f"unseen.{k}", "category": "unseen", "instance_id": k}) for k in range(1, max(numbered, default=0) + 1)
    ]
    links = (str(robot["name"]),) if robot else ()
    names = Names((), links, keypoints, (0,) * len(keypoints), offsets, tuple(o["name"] for o in objects))
    rows = blank_rows(names, len(clip))
    _fill(rows, robots, len(keypoints))
    image_size(images, folder)
    scene = {"format": "coco", "origin": path.name, "files": [i["file_name"] for i in clip], "objects": objects}
    kind = "rendered" if clip[0].get("source") == "rendered" else "real"
    return Video(kind, names, images, rows, scene, {"imported_from": "COCO"}).check()


def _find_image(folder: Path, name: str) -> Path:
    for place in (folder / "images" / name, folder / name, *folder.glob(f"*/{Path(name).name}")):
        if place.is_file():
            return place
    raise ConvertError(f"{folder} holds no image {name}; put the images into {folder / 'images'}")


def _mask(annotation: dict[str, Any], info: dict[str, Any]) -> Array:
    """(H,W) bool from run lengths (compressed or not) or polygons."""
    from pycocotools import mask as coco

    given, height, width = annotation["segmentation"], int(info["height"]), int(info["width"])
    if isinstance(given, list):
        code = coco.merge(coco.frPyObjects(given, height, width))
    else:
        code = coco.frPyObjects(given, height, width) if isinstance(given["counts"], list) else given
    return coco.decode(code).astype(bool)


def _fill(rows: Array, robots: list[dict[str, Any] | None], points: int) -> None:
    for row, annotation in zip(rows, robots, strict=True):
        if annotation and annotation.get("keypoints"):
            triples = np.reshape(np.array(annotation["keypoints"], float), (points, 3))
            row["keypoint_state"] = triples[:, 2]
            row["keypoints_px"] = np.where(triples[:, 2:] > 0, triples[:, :2], np.nan)
