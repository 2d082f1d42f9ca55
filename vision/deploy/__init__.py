"""From a trained net to a file that runs on a device."""
