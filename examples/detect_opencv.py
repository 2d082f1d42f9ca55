#!/usr/bin/env python3
r"""Find objects with an exported file, by OpenCV and NumPy alone: class, score and corners in pixels, a line each.

    python3 examples/detect_opencv.py models/fruit/ssd-mobilenet.onnx images/*.jpg --threshold=0.4

Input size, normalization, class names and threshold stand in the file's metadata. OpenCV reads the file, but does not
show its metadata, so `fact` looks them up in the bytes. By default that normalization is detectNet's, (pixel - 127.5) /
127.5; what the net was trained with follows inside the graph. Scores come out of the graph after softmax.
OpenCV 4.8 and later run all nets, see docs/deploying.md.
"""

import argparse
import json
from pathlib import Path

import cv2
import numpy as np

MAX_OVERLAP = 0.45  # IoU with a better box of its class above which a box is dropped
CANDIDATES = 200  # boxes of a class that are looked at, the best first


def fact(file: bytes, key: str) -> str:
    """Look up metadata as protobuf stores it: 10, length, key, 18, length in groups of 7 bits, value."""
    mark = bytes([10, len(key)]) + key.encode() + bytes([18])
    at = file.find(mark) + len(mark)
    if at < len(mark):
        raise SystemExit(f"the model has no {key!r} in its metadata; expected a file that onnx_export.py wrote")
    length = shift = 0
    while True:
        byte, at = file[at], at + 1
        length, shift = length | (byte & 127) << shift, shift + 7
        if byte < 128:
            return file[at : at + length].decode()


def suppress(boxes: np.ndarray, scores: np.ndarray, threshold: float) -> np.ndarray:
    """Choose those of one class: boxes (P, 4) corner form, scores (P,); indices by falling score."""
    passing = np.flatnonzero(scores > threshold)
    corners, sides = boxes[passing, :2], boxes[passing, 2:] - boxes[passing, :2]
    corners_and_sides = np.concatenate([corners, sides], axis=1).tolist()
    kept = cv2.dnn.NMSBoxes(corners_and_sides, scores[passing].tolist(), threshold, MAX_OVERLAP, top_k=CANDIDATES)
    return passing[np.asarray(kept, int).ravel()]


def main() -> None:
    """Detect."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, help="plain .onnx file of onnx_export.py")
    parser.add_argument("images", nargs="+")
    parser.add_argument("--threshold", type=float, help="least score (default: the file's own, else 0.5)")
    args = parser.parse_args()
    file = args.model.read_bytes()
    width, height = map(int, fact(file, "size").split("x"))
    norm, class_names = json.loads(fact(file, "normalisation")), json.loads(fact(file, "classes"))
    threshold = args.threshold
    if threshold is None:
        threshold = json.loads(fact(file, "ssd")).get("threshold", 0.5)
    net = cv2.dnn.readNetFromONNX(str(args.model))
    for path in args.images:
        image = cv2.imread(path)  # BGR, turned as EXIF says
        if image is None:
            raise SystemExit(f"{path}: cannot be read as an image")
        pixels = cv2.cvtColor(cv2.resize(image, (width, height)), cv2.COLOR_BGR2RGB)
        normalized = (pixels.astype(np.float32) - np.float32(norm["mean"])) / np.float32(norm["std"])
        net.setInput(normalized.transpose(2, 0, 1)[None].copy(), "input_0")
        scores, boxes = (answer[0] for answer in net.forward(["scores", "boxes"]))  # (P, C) and (P, 4) from 0 to 1
        sides = np.array(image.shape[1::-1] * 2)
        for label in range(1, len(class_names)):  # 0 is the background
            for index in suppress(boxes, scores[:, label], threshold):
                box = "\t".join(f"{side:.2f}" for side in (boxes[index] * sides).clip(0, sides))
                print(f"{path}\t{class_names[label]}\t{scores[index, label]:.6f}\t{box}")


if __name__ == "__main__":
    main()
