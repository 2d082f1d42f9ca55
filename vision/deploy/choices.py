"""What options may say of devices and of exported files. Nothing in here loads torch, so that help is quick."""

#: What --postprocess may say: non-maximum suppression, or detectNet's own arithmetic.
NMS, DETECTNET = POSTPROCESSES = ("nms", "detectnet")

#: A score counts from this on (detectnet's --threshold, which takes 0 for this number; here 0 is 0).
DEFAULT_THRESHOLD = 0.5

#: Boxes are joined above this overlap (detectnet's --clustering).
DEFAULT_CLUSTERING = 0.75

#: What --input-norm may say: as detectNet does it, as in training, or not at all.
INPUT_NORM_NAMES = ("detectnet", "train", "raw255")

#: What a file in 8 bits is for: TensorRT, or onnxruntime on a CPU.
INT8_TARGETS = ("tensorrt", "cpu")
