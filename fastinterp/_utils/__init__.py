"""What every folder may use: errors, checks of input, files, devices."""
