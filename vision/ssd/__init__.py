"""SSD proper: the table of nets, their configurations, and the predictor."""
