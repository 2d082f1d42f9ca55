"""Configs of nets: the value `SSDConfig`, the families it is made by, and modules with upstream's names.

An `SSDConfig` is passed around and never changes. The modules of the old names in this package
(`mobilenetv1_ssd_config` and so on) show the size that `set_image_size` last chose, for scripts that use them.
"""
