"""Files in and out: strict readers that name every fault, writers that are complete or absent."""
