"""Writes drawings in the layouts of all formats that are read but VOC's, which `vision.datasets.synthetic` writes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from vision.datasets.synthetic import SHAPES, Drawing, voc_xml, write_image
from vision.utils.files import replacing, write_text


def write_labelimg(root: Path, splits: dict[str, list[Drawing]]) -> None:
    """Write drawings as LabelImg leaves them, with lists by Notepad: BOM, CRLF, suffixes, no `labels.txt`."""
    for split, images in splits.items():
        names = [f"{split} ({number}).jpg" for number in range(len(images))]
        for name, drawing in zip(names, images, strict=True):
            head = f"  <folder>JPEGImages</folder>\n  <path>C:\\Users\\me\\JPEGImages\\{name}</path>\n"
            xml = voc_xml(name, drawing, head=head, before_box="    <pose>Unspecified</pose>\n")
            write_image(root / "JPEGImages" / name, drawing.image)
            write_text(root / "Annotations" / name.replace(".jpg", ".xml"), xml)
        with replacing(root / "ImageSets" / f"{split}.txt") as temporary:
            temporary.write_bytes(("\ufeff" + "".join(f"{name}\r\n" for name in names)).encode())


def write_cvat(root: Path, splits: dict[str, list[Drawing]], class_names: Sequence[str] = tuple(SHAPES)) -> None:
    """Write drawings as CVAT exports them: folders per subset, decimals, attributes, `labelmap.txt`."""
    for split, images in splits.items():
        ids = [f"{split}/frame_{number:06d}" for number in range(len(images))]
        attributes = "    <attributes>\n      <attribute>\n        <name>rotation</name>\n        <value>0.0</value>\n"
        attributes += "      </attribute>\n    </attributes>\n"
        for image_id, drawing in zip(ids, images, strict=True):
            xml = voc_xml(f"{image_id}.jpg", drawing, number=".2f", after_box=attributes)
            write_image(root / "JPEGImages" / f"{image_id}.jpg", drawing.image)
            write_text(root / "Annotations" / f"{image_id}.xml", xml)
        write_text(root / "ImageSets" / "Main" / f"{split}.txt", "".join(f"{image_id}\n" for image_id in ids))
    lines = ["# label:color_rgb:parts:actions", "background:0,0,0::"]
    lines += [f"{name}:{40 * number},0,128::" for number, name in enumerate(class_names)]
    write_text(root / "labelmap.txt", "\n".join(lines) + "\n")


def write_roboflow(root: Path, splits: dict[str, list[Drawing]]) -> None:
    """Write drawings as Roboflow exports them: XML beside the images, a folder per split, dots in names."""
    for split, images in splits.items():
        folder = root / {"test": "valid"}.get(split, split)
        for number, drawing in enumerate(images):
            stem = f"{split}-{number}_jpg.rf.{number:032x}"
            write_image(folder / f"{stem}.jpg", drawing.image)
            xml = voc_xml(
                f"{stem}.jpg", drawing, before_box="    <truncated>0</truncated>\n    <occluded>0</occluded>\n"
            )
            write_text(folder / f"{stem}.xml", xml)
    write_text(root / "README.dataset.txt", "Exported\n")


def write_kaggle(root: Path, splits: dict[str, list[Drawing]]) -> None:
    """Write drawings as many Kaggle sets are: `images` and `annotations`, and nothing that says which is for what."""
    for split, images in splits.items():
        for number, drawing in enumerate(images):
            stem = f"{split}{number}"
            write_image(root / "archive" / "images" / f"{stem}.png", drawing.image)
            write_text(root / "archive" / "annotations" / f"{stem}.xml", voc_xml(f"{stem}.png", drawing))


def write_open_images(root: Path, splits: dict[str, list[Drawing]]) -> None:
    """Write drawings in Open Images layout; splits are train, validation and test."""
    for split, images in splits.items():
        lines = [
            "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,IsDepiction,"
        ]
        lines[0] += "IsInside,id,ClassName"
        for number, drawing in enumerate(images):
            image_id = f"{split}{number:05d}"
            height, width = drawing.image.shape[:2]
            write_image(root / split / f"{image_id}.jpg", drawing.image)
            for name, (x1, y1, x2, y2) in zip(drawing.names, drawing.boxes.tolist(), strict=True):
                corners = f"{x1 / width},{x2 / width},{y1 / height},{y2 / height}"
                lines.append(f"{image_id},synthetic,/m/{name},1,{corners},0,0,0,0,0,/m/{name},{name}")
        write_text(root / f"sub-{split}-annotations-bbox.csv", "\n".join(lines) + "\n")


def write_coco(root: Path, splits: dict[str, list[Drawing]], class_names: Sequence[str] = tuple(SHAPES)) -> None:
    """Write drawings in COCO layout: `annotations/instances_<split>.json` and a folder of images per split."""
    ids = {name: number for number, name in enumerate(class_names, start=1)}
    for split, images in splits.items():
        listed, annotations = [], []
        for number, drawing in enumerate(images):
            height, width = drawing.image.shape[:2]
            listed.append({"id": number, "file_name": f"{split}_{number:05d}.jpg", "width": width, "height": height})
            write_image(root / split / listed[-1]["file_name"], drawing.image)
            for name, (x1, y1, x2, y2) in zip(drawing.names, drawing.boxes.tolist(), strict=True):
                facts = {"id": len(annotations) + 1, "image_id": number, "category_id": ids[name], "iscrowd": 0}
                annotations.append({**facts, "bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1)})
        categories = [{"id": number, "name": name} for name, number in ids.items()]
        content = {"images": listed, "annotations": annotations, "categories": categories}
        write_text(root / "annotations" / f"instances_{split}.json", json.dumps(content))


def write_yolo(root: Path, splits: dict[str, list[Drawing]], class_names: Sequence[str] = tuple(SHAPES)) -> None:
    """Write drawings in YOLO layout, six decimals, and `data.yaml`."""
    for split, images in splits.items():
        for number, drawing in enumerate(images):
            height, width = drawing.image.shape[:2]
            write_image(root / "images" / split / f"{split}_{number:05d}.jpg", drawing.image)
            lines = []
            for name, (x1, y1, x2, y2) in zip(drawing.names, drawing.boxes.tolist(), strict=True):
                box = ((x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height)
                lines.append(f"{class_names.index(name)} {' '.join(f'{value:.6f}' for value in box)}\n")
            write_text(root / "labels" / split / f"{split}_{number:05d}.txt", "".join(lines))
    folders = "".join(f"{split}: images/{split}\n" for split in splits)
    write_text(root / "data.yaml", f"{folders}names: [{', '.join(class_names)}]\n")


def _in_folders(root: Path, splits: dict[str, list[Drawing]], below: str = "") -> Iterator[tuple[Path, Drawing]]:
    """Write the images into a folder a split; gives each with its path."""
    for split, images in splits.items():
        for number, drawing in enumerate(images):
            path = root / split / below / f"{split}_{number:05d}.jpg"
            write_image(path, drawing.image)
            yield path, drawing


def _objects_of(drawing: Drawing) -> Iterator[tuple[str, list[float]]]:
    return zip(drawing.names, drawing.boxes.tolist(), strict=True)


def write_cvat_images(root: Path, splits: dict[str, list[Drawing]]) -> None:
    """Write drawings as CVAT's own format has them: one `annotations.xml` with a subset for each split."""
    parts = []
    for number, (path, drawing) in enumerate(_in_folders(root / "images", splits)):
        height, width = drawing.image.shape[:2]
        shapes = "".join(
            f'<box label="{name}" xtl="{x1:.2f}" ytl="{y1:.2f}" xbr="{x2:.2f}" ybr="{y2:.2f}" z_order="0"></box>'
            for name, (x1, y1, x2, y2) in _objects_of(drawing)
        )
        head = f'id="{number}" name="{path.name}" subset="{path.parent.name}" width="{width}" height="{height}"'
        parts.append(f"<image {head}>{shapes}</image>")
    content = "".join(parts)
    write_text(
        root / "annotations.xml", f'<?xml version="1.0"?><annotations><version>1.1</version>{content}</annotations>'
    )


def write_labelme(root: Path, splits: dict[str, list[Drawing]]) -> None:
    """Write drawings as LabelMe does: a JSON beside each image, corners in the order of clicks."""
    for path, drawing in _in_folders(root, splits):
        height, width = drawing.image.shape[:2]
        shapes = [
            {"label": name, "points": [[x2, y1], [x1, y2]], "shape_type": "rectangle"}
            for name, (x1, y1, x2, y2) in _objects_of(drawing)
        ]
        facts = {"imagePath": path.name, "imageWidth": width, "imageHeight": height, "imageData": None}
        write_text(path.with_suffix(".json"), json.dumps({"version": "5.4.1", "shapes": shapes, **facts}))


def write_createml(root: Path, splits: dict[str, list[Drawing]]) -> None:
    """Write drawings for CreateML, as Roboflow does: a JSON a split, with centers and sizes."""
    contents: dict[Path, list[dict]] = {}
    for path, drawing in _in_folders(root, splits):
        objects = [
            {"label": name, "coordinates": dict(x=(x1 + x2) / 2, y=(y1 + y2) / 2, width=x2 - x1, height=y2 - y1)}
            for name, (x1, y1, x2, y2) in _objects_of(drawing)
        ]
        contents.setdefault(path.parent, []).append({"image": path.name, "annotations": objects})
    for folder, content in contents.items():
        write_text(folder / "_annotations.createml.json", json.dumps(content))


def write_table(root: Path, splits: dict[str, list[Drawing]]) -> None:
    """Write drawings as a table a split, as Roboflow does."""
    tables: dict[Path, list[str]] = {}
    for path, drawing in _in_folders(root, splits):
        height, width = drawing.image.shape[:2]
        lines = tables.setdefault(path.parent, ["filename,width,height,class,xmin,ymin,xmax,ymax"])
        lines += [
            f"{path.name},{width},{height},{name},{','.join(map(str, box))}" for name, box in _objects_of(drawing)
        ]
    for folder, lines in tables.items():
        write_text(folder / "_annotations.csv", "\n".join(lines) + "\n")


def write_kitti(root: Path, splits: dict[str, list[Drawing]]) -> None:
    """Write drawings as DIGITS and TAO want them: `train/images` with `train/labels`."""
    for path, drawing in _in_folders(root, splits, "images"):
        lines = [
            f"{name} 0.00 0 0.0 {' '.join(map(str, box))} 0.0 0.0 0.0 0.0 0.0 0.0 0.0\n"
            for name, box in _objects_of(drawing)
        ]
        write_text(path.parent.parent / "labels" / f"{path.stem}.txt", "".join(lines))


def write_oidv4(root: Path, splits: dict[str, list[Drawing]]) -> None:
    """Write drawings as the OIDv4 toolkit does for several classes at once: all in a folder of their names."""
    for path, drawing in _in_folders(root / "Dataset", splits, "_".join(SHAPES)):
        lines = [f"{name} {' '.join(map(str, box))}\n" for name, box in _objects_of(drawing)]
        write_text(path.parent / "Label" / f"{path.stem}.txt", "".join(lines))


def write_imglab(root: Path, splits: dict[str, list[Drawing]]) -> None:
    """Write drawings as dlib's imglab does: `training.xml` and `testing.xml` with images in folders beside them."""
    for split, images in splits.items():
        parts = []
        for path, drawing in _in_folders(root, {split: images}):
            boxes = "".join(
                f"<box top='{y1}' left='{x1}' width='{x2 - x1}' height='{y2 - y1}'><label>{name}</label></box>"
                for name, (x1, y1, x2, y2) in _objects_of(drawing)
            )
            parts.append(f"<image file='{path.relative_to(root).as_posix()}'>{boxes}</image>")
        content = f"<dataset><name>shapes</name><images>{''.join(parts)}</images></dataset>"
        name = {"train": "training", "test": "testing"}.get(split, split)
        write_text(root / f"{name}.xml", f"<?xml version='1.0' encoding='UTF-8'?>{content}")


def write_via(root: Path, splits: dict[str, list[Drawing]]) -> None:
    """Write drawings as VIA does: a JSON a split, with rectangles."""
    contents: dict[Path, dict[str, dict]] = {}
    for path, drawing in _in_folders(root, splits):
        regions = [
            {
                "shape_attributes": {"name": "rect", "x": x1, "y": y1, "width": x2 - x1, "height": y2 - y1},
                "region_attributes": {"class": name},
            }
            for name, (x1, y1, x2, y2) in _objects_of(drawing)
        ]
        size = path.stat().st_size
        image = {"filename": path.name, "size": size, "regions": regions, "file_attributes": {}}
        contents.setdefault(path.parent, {})[f"{path.name}{size}"] = image
    for folder, content in contents.items():
        write_text(folder / "via_region_data.json", json.dumps(content))


def write_label_studio(root: Path, splits: dict[str, list[Drawing]]) -> None:
    """Write drawings as Label Studio exports them: a JSON a split, in hundredths of the image."""
    contents: dict[Path, list[dict]] = {}
    for path, drawing in _in_folders(root, splits):
        height, width = drawing.image.shape[:2]
        sides = {"original_width": width, "original_height": height, "type": "rectanglelabels"}
        result = []
        for name, (x1, y1, x2, y2) in _objects_of(drawing):
            box = {"x": x1 / width, "y": y1 / height, "width": (x2 - x1) / width, "height": (y2 - y1) / height}
            hundredths = {key: 100 * value for key, value in box.items()}
            result.append({**sides, "value": {**hundredths, "rotation": 0, "rectanglelabels": [name]}})
        task = {"data": {"image": f"/data/upload/1/0123abcd-{path.name}"}, "annotations": [{"result": result}]}
        contents.setdefault(path.parent, []).append(task)
    for folder, content in contents.items():
        write_text(folder / "project-1.json", json.dumps(content))
