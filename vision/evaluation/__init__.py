"""How good detections are. Takes values, gives values: no net, no dataset class, no files."""

from vision.evaluation.report import ClassResult, Report, evaluate

__all__ = ["ClassResult", "Report", "evaluate"]
