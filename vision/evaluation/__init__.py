"""How good detections are. Takes values, gives values: no net, no dataset class, no files."""

from vision.evaluation.report import ClassResult, Evaluation, Report, ap_text, evaluate, number_text

__all__ = ["ClassResult", "Evaluation", "Report", "ap_text", "evaluate", "number_text"]
