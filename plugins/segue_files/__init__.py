"""Large values in a folder: `file:///path`, for one machine or for a file system that all machines share."""
