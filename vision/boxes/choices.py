"""What options may say of suppression. Nothing in here loads torch, so that help is quick."""

#: Ways of non-maximum suppression.
METHODS = ("hard", "soft")

#: Overlap above which a box is dropped.
DEFAULT_IOU_THRESHOLD = 0.45
