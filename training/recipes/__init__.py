"""One module per paper: what its network, data and loss are. The loop is `training.loop`."""
